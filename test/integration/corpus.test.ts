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
import { MiB } from '../../src/common/units.js';
import { ControlSocket, RpcFailure } from '../support/control-socket.js';
import {
  type CorpusImage,
  corpusFolder,
  corpusImages,
  unpackImage,
} from '../support/corpus-images.js';
import { startDaemon, type TestDaemon, TRANSPORTS } from '../support/daemon.js';
import { cannotServe } from '../support/mount-guard.js';
import { runProgram, tool } from '../support/run-program.js';
import { stampedPattern } from '../support/stamped-pattern.js';

const LONG = process.env.LAYERDISK_LONG === '1';
const FORMATS = ['raw', 'vdi', 'vmdk', 'vhd', 'vhdx', 'qcow2'];
/** These go through a whole life; images of other formats are read once, unless there is time. */
const WHOLE_LIFE = ['raw', 'vdi'];
/** Larger disks are read by their own room's tests, which know where their data is. */
const MAX_READ = (LONG ? 2048 : 256) * MiB;

async function sha256(path: string, length = Number.POSITIVE_INFINITY): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path, { end: length - 1 }), hash);
  return hash.digest('hex');
}

/** Everything about a file that an import must not touch. */
async function traitsOf(paths: readonly string[]) {
  return Promise.all(
    paths.map(async (path) => {
      const { size, mode, mtimeMs, ctimeMs } = await stat(path);
      return { path, size, mode, mtimeMs, ctimeMs, sha256: await sha256(path) };
    }),
  );
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

/** An image through its whole life; `expected` is the digest of its raw content. */
async function checkLife(
  t: Test,
  daemon: TestDaemon,
  image: { files: readonly string[]; format: string; size: number; sha256: string },
) {
  const { files, format, size } = image;
  const before = await traitsOf(files);
  await daemon.ok('import', files[0] ?? '', 'vm', '--format', format);
  const path = await daemon.ok('path', 'vm');
  const content = (file: string) => sha256(file, size);
  t.equal((await stat(path)).size, Math.ceil(size / 512) * 512, 'the size, in whole sectors');
  t.equal(await content(path), image.sha256, 'as imported');

  await daemon.ok('snapshot', 'take', 'vm@first');
  await scribble(path, 1);
  t.not(await content(path), image.sha256, 'written to');
  await daemon.ok('clone', 'vm@first', 'clone', '--linked');
  t.equal(await content(daemon.rawFile('clone')), image.sha256, 'a clone of the snapshot');
  await scribble(daemon.rawFile('clone'), 2);
  t.equal(await content(daemon.rawFile('vm', 'first')), image.sha256, 'the snapshot');
  await daemon.ok('snapshot', 'restore', 'vm@first', '--discard');
  t.equal(await content(path), image.sha256, 'restored');
  await daemon.ok('snapshot', 'delete', 'vm@first');
  t.equal(await content(path), image.sha256, 'after the snapshot is deleted');
  await daemon.stop();
  await daemon.start();
  t.equal(await content(path), image.sha256, 'after a restart');
  await daemon.ok('delete', 'clone');
  await daemon.ok('delete', 'vm');
  t.same(await traitsOf(files), before, 'the files of the image are as they were');
}

async function checkImage(t: Test, daemon: TestDaemon, corpus: string, image: CorpusImage) {
  const folder = join(daemon.folder, 'images', image.id.replaceAll('/', '-'));
  const files = await unpackImage(corpus, image, folder);
  const { virtual_size: size, sha256: hash, format } = image;
  if (image.expect !== 'ok' || !(LONG || WHOLE_LIFE.includes(format))) {
    await checkOnce(t, daemon, image, files);
    return;
  }
  const known = size ?? (await stat(files[0] ?? '')).size;
  if (hash === undefined) throw new Error(`${image.id} has no digest in the manifest`);
  if (known > MAX_READ) t.pass('content', { skip: `${known} bytes are too many` });
  else await checkLife(t, daemon, { files, format, size: known, sha256: hash });
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
  const { size } = await stat(path);
  if (size > MAX_READ) t.pass('content', { skip: `${size} bytes are too many` });
  else if (image.sha256 !== undefined) {
    t.equal(await sha256(path, image.virtual_size), image.sha256, 'the content');
  }
}

/** Images made on the spot by qemu-img, so that there is something without the corpus, too. */
async function checkMade(t: Test, daemon: TestDaemon) {
  const size = 9 * MiB + 512;
  const raw = join(daemon.folder, 'made.raw');
  await tool('truncate', ['-s', String(size), raw]);
  await scribble(raw, 7);
  const hash = await sha256(raw);
  await checkLife(t, daemon, { files: [raw], format: 'raw', size, sha256: hash });
  for (const options of [[], ['-o', 'static=on']]) {
    const vdi = join(daemon.folder, `made${options.length}.vdi`);
    await tool('qemu-img', ['convert', '-f', 'raw', '-O', 'vdi', ...options, raw, vdi]);
    await checkLife(t, daemon, { files: [vdi], format: 'vdi', size, sha256: hash });
  }
}

const corpus = corpusFolder();

for (const transport of TRANSPORTS) {
  t.test(`over the ${transport} channel`, { skip: cannotServe() }, async (t) => {
    const daemon = await startDaemon(t, { transport });
    await t.test('images made by qemu-img', (t) => checkMade(t, daemon));
    if (corpus === undefined) {
      t.pass('corpus', { skip: 'neither ../shared/corpus nor LAYERDISK_CORPUS is there' });
      return;
    }
    const images = await corpusImages(corpus);
    const quick = images.filter(({ format }) => WHOLE_LIFE.includes(format));
    // What a format says does not depend on the channel.
    for (const image of LONG || transport === 'kernel' ? images : quick) {
      await t.test(image.id, (t) => checkImage(t, daemon, corpus, image));
    }
  });
}
