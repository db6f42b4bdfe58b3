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
import { isFormatName } from '../../src/formats/registry.js';
import {
  type CorpusImage,
  corpusFolder,
  corpusImages,
  unpackImage,
} from '../support/corpus-images.js';
import { startDaemon, type TestDaemon, TRANSPORTS } from '../support/daemon.js';
import { cannotServe } from '../support/mount-guard.js';
import { checkRefusal, EXIT } from '../support/refusal.js';
import { runProgram, tool } from '../support/run-program.js';
import { stampedPattern } from '../support/stamped-pattern.js';

/**
 * Formats whose images go through snapshots, clones and restores; of the others the content is
 * compared.
 */
const WHOLE_LIFE = ['raw', 'vdi'];
/**
 * Over fuse-native, a few images show what there is to see: the formats do not know the channel.
 */
const NATIVE_IMAGES = 3;
/** Larger disks are read by their own room's tests, which know where their data is. */
const MAX_READ = 512 * MiB;

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

async function checkContent(
  t: Test,
  daemon: TestDaemon,
  image: { files: readonly string[]; format: string; size: number; sha256: string },
) {
  const { files, format, size } = image;
  const before = await traitsOf(files);
  await daemon.ok('import', files[0] ?? '', 'vm', '--format', format);
  t.equal(await sha256(daemon.rawFile('vm'), size), image.sha256, 'as imported');
  await daemon.ok('delete', 'vm');
  t.same(await traitsOf(files), before, 'the files of the image are as they were');
}

async function checkImage(t: Test, daemon: TestDaemon, corpus: string, image: CorpusImage) {
  const folder = join(daemon.folder, 'images', image.id.replaceAll('/', '-'));
  const files = await unpackImage(corpus, image, folder);
  if (image.expect === 'ok') {
    const { virtual_size: size, sha256: hash, format } = image;
    const known = size ?? (await stat(files[0] ?? '')).size;
    if (hash === undefined) throw new Error(`${image.id} has no digest in the manifest`);
    if (known > MAX_READ) t.pass('content', { skip: `${known} bytes are too many` });
    else if (WHOLE_LIFE.includes(format)) {
      await checkLife(t, daemon, { files, format, size: known, sha256: hash });
    } else {
      const whole = size ?? Number.POSITIVE_INFINITY;
      await checkContent(t, daemon, { files, format, size: whole, sha256: hash });
    }
    return;
  }
  const before = await traitsOf(files);
  const args = ['import', files[0] ?? '', 'vm', '--format', image.format];
  const result = await daemon.cli(args);
  if (image.expect === 'refuse') t.not(result.code, 0, `must be refused: ${image.why}`);
  if (result.code === 0) {
    await checkOpened(t, daemon, image);
    await daemon.ok('delete', 'vm');
  } else {
    const codes = [EXIT.failed, EXIT.notFound, EXIT.damaged, EXIT.notPermitted, EXIT.notSupported];
    checkRefusal(t, result, codes, new RegExp(image.main.replace(/[^\w]/g, '.')));
    t.same(await daemon.json('list'), [], 'no VM is left');
  }
  t.same(await traitsOf(files), before, 'the files of the image are as they were');
}

/** A damaged image that was imported: its bad range says so, and nobody gets made-up bytes. */
async function checkOpened(t: Test, daemon: TestDaemon, image: CorpusImage) {
  const read = await runProgram('cat', [daemon.rawFile('vm')]);
  if (image.expect === 'io-error') {
    t.not(read.code, 0, `reading reports the damage: ${image.why}`);
    t.match(read.stderr, /Input\/output error/);
  } else if (image.sha256 !== undefined) {
    t.equal(await sha256(daemon.rawFile('vm'), image.virtual_size), image.sha256);
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
    const all = (await corpusImages(corpus)).filter(
      ({ format, expect }) =>
        // What must be refused is tried in bulk by each format's own tests.
        WHOLE_LIFE.includes(format) || (expect === 'ok' && isFormatName(format)),
    );
    const images = transport === 'kernel' ? all : all.slice(0, NATIVE_IMAGES);
    for (const image of images) {
      await t.test(image.id, (t) => checkImage(t, daemon, corpus, image));
    }
  });
}
