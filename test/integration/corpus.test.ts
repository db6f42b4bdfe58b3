/**
 * Foreign images through the whole program: the exposed file has the content that the image's
 * manifest states, before and after snapshots, clones and restores, and the image's files are never
 * changed.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import t, { type Test } from 'tap';
import { GiB, MiB } from '../../src/common/units.js';
import { ControlSocket, RpcFailure } from '../support/control-socket.js';
import { type Corpus, type CorpusImage, openCorpus } from '../support/corpus.js';
import { startDaemon, type TestDaemon, TRANSPORTS } from '../support/daemon.js';
import { hashOfBlocks, traitsOf } from '../support/file-traits.js';
import { cannotServe } from '../support/mount-guard.js';
import { runProgram, tool } from '../support/run-program.js';
import { stampedPattern } from '../support/stamped-pattern.js';
import { tempFolder } from '../support/temp-folder.js';

const LONG = process.env.LAYERDISK_LONG === '1';
const FORMATS = ['raw', 'vdi', 'vmdk', 'vhd', 'vhdx', 'qcow2'];
/** These go through a whole life; images of other formats are read once, unless there is time. */
const WHOLE_LIFE = ['raw', 'vdi'];
/** Larger disks are read where they have data. */
const MAX_WHOLE = (LONG ? 256 : 64) * MiB;
/** Through fuse-native every byte is read: it cannot say where the holes of a file are. */
const MAX_WITHOUT_HOLES = 4 * GiB;

async function sha256(path: string, length = Number.POSITIVE_INFINITY): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path, { end: length - 1, highWaterMark: MiB }), hash);
  return hash.digest('hex');
}

/** A digest of a disk's content, and how it is taken from a raw file. */
interface Digest {
  readonly expected: string;
  of(path: string): Promise<string>;
}

/** By its blocks where the disk is too large to read whole. */
function digestOf(image: CorpusImage, size: number): Digest | undefined {
  const { sha256: whole, nz64k: blocks } = image;
  if (size > MAX_WHOLE && blocks !== undefined) return { expected: blocks, of: hashOfBlocks };
  if (whole === undefined) return undefined;
  return { expected: whole, of: (path) => sha256(path, image.virtual_size ?? size) };
}

async function scribble(path: string, generation: number): Promise<void> {
  const { size } = await stat(path);
  const file = await open(path, 'r+');
  try {
    for (const offset of [0, Math.floor(size / 3 / 512) * 512, size - 512]) {
      const length = Math.min(5120, size - offset);
      await file.write(stampedPattern(generation, offset, length), 0, length, offset);
    }
  } finally {
    await file.close();
  }
}

interface Subject {
  readonly vm: string;
  readonly files: readonly string[];
  readonly format: string;
  readonly size: number;
  readonly digest: Digest;
}

/**
 * An image through its whole life, up to a restart of the daemon.
 * @returns what is to be done after it
 */
async function checkLife(t: Test, daemon: TestDaemon, subject: Subject) {
  const { vm, files, format, size } = subject;
  const { expected, of: content } = subject.digest;
  const before = await traitsOf(files);
  const [first, clone] = [`${vm}@first`, `${vm}-clone`];
  await daemon.ok('import', files[0] ?? '', vm, '--format', format);
  const path = await daemon.ok('path', vm);
  t.equal((await stat(path)).size, Math.ceil(size / 512) * 512, 'the size, in whole sectors');
  t.equal(await content(path), expected, 'as imported');

  await daemon.ok('snapshot', 'take', first);
  await scribble(path, 1);
  t.not(await content(path), expected, 'written to');
  await daemon.ok('clone', first, clone, '--linked');
  t.equal(await content(daemon.rawFile(clone)), expected, 'a clone of the snapshot');
  await scribble(daemon.rawFile(clone), 2);
  t.equal(await content(daemon.rawFile(vm, 'first')), expected, 'the snapshot');
  await daemon.ok('snapshot', 'restore', first, '--discard');
  t.equal(await content(path), expected, 'restored');
  await daemon.ok('snapshot', 'delete', first);
  t.equal(await content(path), expected, 'after the snapshot is deleted');
  return async () => {
    t.equal(await content(path), expected, `${vm} after a restart`);
    await daemon.ok('delete', clone);
    await daemon.ok('delete', vm);
    t.same(await traitsOf(files), before, 'the files of the image are as they were');
  };
}

/** Lives of many images, which share the restart in their middle. */
async function checkLives(t: Test, daemon: TestDaemon, subjects: readonly Subject[]) {
  const rest: (() => Promise<void>)[] = [];
  for (const subject of subjects) {
    t.comment(`${subject.vm}: ${subject.files[0]}`);
    rest.push(await checkLife(t, daemon, subject));
  }
  await daemon.stop();
  await daemon.start();
  for (const go of rest) await go();
}

/** The images of the corpus that go through a whole life. */
async function subjectsOf(corpus: Corpus, images: readonly CorpusImage[]): Promise<Subject[]> {
  return Promise.all(
    images.map(async (image, index) => {
      const files = corpus.unpack(image);
      const size = image.virtual_size ?? (await stat(files[0])).size;
      const digest = digestOf(image, size);
      if (digest === undefined) throw new Error(`${image.id} has no digest in the manifest`);
      return { vm: `image${index}`, files, format: image.format, size, digest };
    }),
  );
}

function hasWholeLife({ expect, format, virtual_size }: CorpusImage): boolean {
  // Of those that were damaged in a way that does not matter the size is not said.
  const isLong = LONG && virtual_size !== undefined;
  return expect === 'ok' && (isLong || WHOLE_LIFE.includes(format));
}

function isTooLarge({ virtual_size = 0 }: CorpusImage, transport: string): boolean {
  return LONG && transport === 'fuse-native' && virtual_size > MAX_WITHOUT_HOLES;
}

/** An image that is imported, read and forgotten, or refused as the manual says. */
async function checkOnce(
  t: Test,
  daemon: TestDaemon,
  image: CorpusImage,
  files: readonly string[],
) {
  const before = await traitsOf(files);
  const client = await ControlSocket.connect(daemon.socket);
  t.teardown(() => client.destroy());
  let refused: RpcFailure | undefined;
  try {
    // A format that nobody here reads must be found out.
    const format = FORMATS.find((name) => name === image.format) ?? 'auto';
    await client.call('import', { files: files.slice(0, 1), vm: 'vm', format });
  } catch (error) {
    if (!(error instanceof RpcFailure)) throw error;
    refused = error;
  }
  if (refused === undefined) {
    t.not(image.expect, 'refuse', `must be refused: ${image.why}`);
    await checkContent(t, daemon, image);
    await client.call('delete', { vm: 'vm' });
  } else {
    t.not(image.expect, 'ok', refused.message);
    t.ok(refused.message.includes(image.main), `names the file: ${refused.message}`);
    t.notMatch(refused.message, /\n/, 'one line');
  }
  t.same(await client.call('list', {}), [], 'no VM is left');
  t.same(await traitsOf(files), before, 'the files of the image are as they were');
}

/**
 * What an imported image shows; a damaged one reports its damage, and nobody gets made-up bytes.
 */
async function checkContent(t: Test, daemon: TestDaemon, image: CorpusImage) {
  const path = daemon.rawFile('vm');
  if (image.expect === 'io-error') {
    const read = await runProgram('cat', [path]);
    t.not(read.code, 0, `reading reports the damage: ${image.why}`);
    t.match(read.stderr, /Input\/output error/);
    return;
  }
  const digest = digestOf(image, (await stat(path)).size);
  if (digest !== undefined) t.equal(await digest.of(path), digest.expected, 'the content');
}

/** Images made on the spot by qemu-img, so that there is something without the corpus, too. */
async function madeSubjects(daemon: TestDaemon): Promise<Subject[]> {
  const size = 9 * MiB + 512;
  const raw = join(daemon.folder, 'made.raw');
  await tool('truncate', ['-s', String(size), raw]);
  await scribble(raw, 7);
  const digest = { expected: await sha256(raw), of: (path: string) => sha256(path, size) };
  const subjects: Subject[] = [{ vm: 'raw', files: [raw], format: 'raw', size, digest }];
  for (const options of [[], ['-o', 'static=on']]) {
    const vm = `vdi${options.length}`;
    const vdi = join(daemon.folder, `${vm}.vdi`);
    await tool('qemu-img', ['convert', '-f', 'raw', '-O', 'vdi', ...options, raw, vdi]);
    subjects.push({ vm, files: [vdi], format: 'vdi', size, digest });
  }
  return subjects;
}

t.test('the corpus', { skip: cannotServe() }, async (t) => {
  const corpus = openCorpus(t, tempFolder(t));
  for (const transport of TRANSPORTS) {
    await t.test(`over the ${transport} channel`, async (t) => {
      const images = (corpus?.images ?? []).filter((image) => !isTooLarge(image, transport));
      const daemon = await startDaemon(t, { transport });
      await t.test('whole lives', async (t) => {
        const subjects = await madeSubjects(daemon);
        if (corpus !== undefined) {
          subjects.push(...(await subjectsOf(corpus, images.filter(hasWholeLife))));
        }
        await checkLives(t, daemon, subjects);
      });
      if (corpus === undefined) return;
      for (const image of images.filter((image) => !hasWholeLife(image))) {
        // What a format says does not depend on the channel.
        if (!LONG && transport !== 'kernel' && !WHOLE_LIFE.includes(image.format)) continue;
        await t.test(image.id, (t) => checkOnce(t, daemon, image, corpus.unpack(image)));
      }
    });
  }
});
