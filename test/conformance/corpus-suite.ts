/**
 * What the corpus expects of a format's reader: right content, clear refusals, I/O errors instead
 * of wrong bytes.
 */
import { createHash } from 'node:crypto';
import { dirname } from 'node:path';
import type { Test } from 'tap';
import { DiskError } from '../../src/common/errors.js';
import { GiB, MiB, SECTOR_SIZE } from '../../src/common/units.js';
import type { Base } from '../../src/engine/base.js';
import type { Extent } from '../../src/engine/disk-image.js';
import { describeBase, openBase } from '../../src/formats/base.js';
import { type Corpus, type CorpusImage, openCorpus } from '../support/corpus.js';
import { traitsOf } from '../support/file-traits.js';
import { createRandom, newSeed, type Random } from '../support/random.js';
import { tempFolder } from '../support/temp-folder.js';
import { Tally, triesOr } from '../torture/tally.js';
import { openDescriptors } from './image-suite.js';
import { filesOpenedBesides, openRegularFiles } from './opened-files.js';

const UNIT = 64 * 1024;
/** Disks above this are compared by their parts that are not zero. */
const WHOLE_DISK_LIMIT = process.env.LAYERDISK_LONG === '1' ? GiB : 64 * MiB;
const OPEN_LIMIT_MS = 5000;
const MEMORY_LIMIT = 256 * MiB;

/** Runs every image of the corpus, or so many of them as LAYERDISK_TRIES says. */
export function corpusSuite(t: Test): void {
  t.test('corpus', { timeout: 600_000 }, async (t) => {
    const corpus = openCorpus(t, tempFolder(t));
    // Without images there is no figure either: scripts/torture takes that for a failure.
    if (corpus === undefined) return;
    const random = createRandom(newSeed());
    t.comment(`LAYERDISK_SEED=${random.seed}`);
    const tally = new Tally(t);
    for (const image of someOf(corpus.images, random)) {
      let isRight = false;
      await t.test(`${image.id}: ${image.expect}`, async (t) => {
        const files = corpus.unpack(image);
        const before = await traitsOf(files);
        checkImage(t, corpus, image, files[0]);
        t.strictSame(await traitsOf(files), before, 'the files of the image are as they were');
        isRight = t.passing();
      });
      tally.judge(image.id, isRight ? undefined : 'not as the manifest says');
    }
    tally.print({ of: corpus.images.length });
  });
}

/** As many as are asked for; other ones with another seed, where that is not all of them. */
function someOf(images: readonly CorpusImage[], random: Random): CorpusImage[] {
  const left = [...images];
  while (left.length > triesOr(images.length)) left.splice(random.below(left.length), 1);
  return left;
}

function checkImage(t: Test, corpus: Corpus, image: CorpusImage, path: string): void {
  const memory = process.memoryUsage().rss;
  const started = performance.now();
  const opened = tryOpen(t, path);
  t.ok(performance.now() - started < OPEN_LIMIT_MS, 'opening is quick');
  t.ok(process.memoryUsage().rss - memory < MEMORY_LIMIT, 'opening takes little memory');
  if (opened instanceof DiskError) {
    t.not(image.expect, 'ok', `refused: ${opened.message}`);
    t.ok(opened.message.includes(dirname(path)), 'the message names the file');
    return;
  }
  t.teardown(() => opened.close());
  if (image.expect === 'io-error') checkDamaged(t, corpus, image, opened);
  else if (image.expect === 'refuse') t.fail('opened, but should be refused');
  else checkContent(t, image, opened);
}

function tryOpen(t: Test, path: string): Base | DiskError {
  const before = openDescriptors();
  const others = openRegularFiles();
  try {
    const base = openBase(describeBase(path).spec);
    const outside = filesOpenedBesides(others, dirname(path));
    t.strictSame(outside, [], 'no file outside the folder is opened');
    return base;
  } catch (error) {
    t.equal(openDescriptors(), before, 'nothing stays open');
    if (error instanceof DiskError) return error;
    throw error;
  }
}

function checkContent(t: Test, image: CorpusImage, base: Base): void {
  if (image.virtual_size !== undefined) t.equal(base.virtualSize, image.virtual_size, 'size');
  const large = base.virtualSize > WHOLE_DISK_LIMIT;
  if (large && image.nz64k !== undefined) {
    t.equal(hashOfBlocks(base), image.nz64k, 'content (blocks that are not zero)');
  } else if (image.sha256 !== undefined) {
    t.equal(hashOfDisk(base), image.sha256, 'content');
  } else {
    t.equal(image.expect, 'refuse-or-ok', 'there is nothing to compare with');
  }
}

function hashOfDisk(base: Base): string {
  const hash = createHash('sha256');
  const bytes = Buffer.alloc(UNIT);
  for (let at = 0; at < base.virtualSize; at += UNIT) {
    const length = Math.min(UNIT, base.virtualSize - at);
    base.readAt(bytes, 0, at, length);
    hash.update(bytes.subarray(0, length));
  }
  return hash.digest('hex');
}

/**
 * `nz64k` of the manifest: number (64 bits, little endian) and bytes of every 64 KiB that are not
 * all zero.
 */
function hashOfBlocks(base: Base): string {
  const hash = createHash('sha256');
  const bytes = Buffer.alloc(UNIT);
  const zeroes = Buffer.alloc(UNIT);
  const number = Buffer.alloc(8);
  const extent: Extent = { state: 'data', length: 0 };
  for (let at = 0; at < base.virtualSize; ) {
    base.extentAt(at, base.virtualSize - at, extent);
    if (extent.state !== 'data' && extent.length >= UNIT) {
      at += Math.floor(extent.length / UNIT) * UNIT;
      continue;
    }
    const length = Math.min(UNIT, base.virtualSize - at);
    base.readAt(bytes, 0, at, length);
    const block = bytes.subarray(0, length);
    if (!block.equals(zeroes.subarray(0, length))) {
      number.writeBigUInt64LE(BigInt(at / UNIT));
      hash.update(number).update(block);
    }
    at += UNIT;
  }
  return hash.digest('hex');
}

/** Every sector fails with EIO or is that of the undamaged image; and some do fail. */
function checkDamaged(t: Test, corpus: Corpus, image: CorpusImage, base: Base): void {
  const undamaged = readUndamaged(corpus, image);
  const wrong: number[] = [];
  const failed: number[] = [];
  const bytes = Buffer.alloc(SECTOR_SIZE);
  for (let at = 0; at < base.virtualSize; at += SECTOR_SIZE) {
    try {
      base.readAt(bytes, 0, at, SECTOR_SIZE);
      if (undamaged && !bytes.equals(undamaged.subarray(at, at + SECTOR_SIZE))) wrong.push(at);
    } catch (error) {
      if (!(error instanceof DiskError) || error.errno !== 'EIO') throw error;
      failed.push(at);
    }
  }
  t.ok(undamaged !== undefined, 'there is an undamaged image to compare with');
  t.strictSame(wrong, [], 'no sector is silently wrong');
  t.ok(failed.length > 0, `${failed.length} sectors fail with EIO`);
  for (const [offset, length] of image.bad ?? []) {
    const inside = failed.filter((at) => at >= offset && at < offset + length);
    t.equal(inside.length, length / SECTOR_SIZE, 'all sectors known to be damaged fail');
  }
}

/**
 * The content that a damaged image had: that of an image of the corpus that still has it and can be
 * read here.
 */
function readUndamaged(corpus: Corpus, image: CorpusImage): Buffer | undefined {
  const twins = corpus.images.filter(
    ({ expect, sha256 }) => expect === 'ok' && sha256 === image.undamaged_sha256,
  );
  for (const twin of twins) {
    const base = openBase(describeBase(corpus.unpack(twin)[0]).spec);
    const whole = Buffer.alloc(base.virtualSize);
    base.readAt(whole, 0, 0, whole.length);
    base.close();
    // A twin of a format that is not part of this build passes as raw.
    if (createHash('sha256').update(whole).digest('hex') === image.undamaged_sha256) return whole;
  }
  return undefined;
}
