/**
 * Mutates the metadata of images and uses them: whatever the bytes say, only a `DiskError` or
 * consistent data may come.
 */
import { closeSync, ftruncateSync, openSync, readSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { Test } from 'tap';
import { DiskError } from '../../src/common/errors.js';
import { MiB } from '../../src/common/units.js';
import type { DiskImage, Extent } from '../../src/engine/disk-image.js';
import { ImageBase } from '../../src/formats/base.js';
import { openChain } from '../../src/formats/open-chain.js';
import type { Tally } from '../torture/tally.js';
import { breathe } from './mutation-fuzz.js';
import type { Random } from './random.js';

/** A part of a file worth mutating: headers, tables, descriptors. */
export interface FuzzTarget {
  readonly file: string;
  readonly offset: number;
  readonly length: number;
}

export interface FuzzSubject {
  readonly name: string;
  /** File name -> undamaged bytes. */
  readonly files: Readonly<Record<string, Buffer>>;
  /** The file that is opened. */
  readonly main: string;
  readonly targets: readonly FuzzTarget[];
}

interface Mutation {
  readonly file: string;
  readonly offset: number;
  readonly bytes: Buffer;
}

const MEMORY_LIMIT = 256 * MiB;
/** More tell nothing new. */
const MOST_LOSSES = 5;
const MAX_EXTENTS = 200;
const MAX_READ = 70_000;
/** Numbers at which size arithmetic breaks. */
const DELICATE = [
  0n,
  1n,
  2n,
  511n,
  512n,
  0x7fffn,
  0xffffn,
  0x10000n,
  0x7fffffffn,
  0x80000000n,
  0xfffffffdn,
  0xfffffffen,
  0xffffffffn,
  0x100000000n,
  (1n << 53n) - 1n,
  1n << 53n,
  1n << 62n,
  (1n << 64n) - 1n,
];

/**
 * Opens `rounds` mutants of `subject`, each a try. A loss names seed and round; LAYERDISK_SEED with
 * as many tries replays it.
 */
export async function fuzzImage(
  t: Test,
  folder: string,
  subject: FuzzSubject,
  { random, rounds, tally }: { random: Random; rounds: number; tally: Tally },
): Promise<void> {
  const descriptors = new Map<string, number>();
  for (const [name, bytes] of Object.entries(subject.files)) {
    writeFileSync(join(folder, name), bytes);
    descriptors.set(name, openSync(join(folder, name), 'r+'));
  }
  const path = join(folder, subject.main);
  const memory = process.memoryUsage().rss;
  const outcomes = { refused: 0, opened: 0 };
  let slowest = 0;
  for (let round = 0; round < rounds && tally.losses < MOST_LOSSES; round += 1) {
    await breathe(round);
    const mutations = mutate(subject, random);
    for (const { file, offset, bytes } of mutations) {
      writeSync(descriptors.get(file)!, bytes, 0, bytes.length, offset);
    }
    const cut = random.below(12) === 0 ? random.pick(Object.keys(subject.files)) : undefined;
    if (cut !== undefined) {
      ftruncateSync(descriptors.get(cut)!, random.below(subject.files[cut]!.length + 1));
    }
    const started = performance.now();
    tally.tried();
    try {
      outcomes[useImage(path, random)] += 1;
    } catch (error) {
      const what = error instanceof Error ? error.stack : String(error);
      const how = mutations.map((m) => `${m.file}@${m.offset}=${m.bytes.toString('hex')}`);
      const where = `${subject.name}, seed ${random.seed}, round ${round}`;
      tally.lost(`${where} [${how}] cut ${cut}: ${what}`);
    }
    slowest = Math.max(slowest, performance.now() - started);
    restore(subject, descriptors, mutations, cut);
  }
  for (const fd of descriptors.values()) closeSync(fd);
  const { refused, opened } = outcomes;
  const took = `the slowest took ${Math.round(slowest)} ms`;
  t.comment(`${subject.name}: ${refused} refused, ${opened} opened, ${took}`);
  t.ok(process.memoryUsage().rss - memory < MEMORY_LIMIT, 'memory stays bounded');
}

function restore(
  subject: FuzzSubject,
  descriptors: ReadonlyMap<string, number>,
  mutations: readonly Mutation[],
  cut: string | undefined,
): void {
  for (const { file, offset, bytes } of mutations) {
    writeSync(descriptors.get(file)!, subject.files[file]!, offset, bytes.length, offset);
  }
  if (cut !== undefined) {
    const original = subject.files[cut]!;
    writeSync(descriptors.get(cut)!, original, 0, original.length, 0);
    ftruncateSync(descriptors.get(cut)!, original.length);
  }
}

function mutate(subject: FuzzSubject, random: Random): Mutation[] {
  return Array.from({ length: 1 + random.below(4) }, () => {
    const { file, offset, length } = random.pick(subject.targets);
    const size = Math.min(random.pick([1, 1, 2, 4, 4, 8]), length);
    // Fields are aligned more often than not.
    const step = random.below(4) === 0 ? 1 : size;
    const at = offset + Math.floor(random.below(length - size + 1) / step) * step;
    return { file, offset: at, bytes: replacement(subject.files[file]!, at, size, random) };
  });
}

/**
 * New bytes for a field: a delicate number, its neighbour, another field's value, a flipped bit,
 * noise.
 */
function replacement(file: Buffer, at: number, size: number, random: Random): Buffer {
  const bytes = Buffer.alloc(8);
  switch (random.below(5)) {
    case 0:
      bytes.writeBigUInt64LE(random.pick(DELICATE));
      break;
    case 1:
      file.copy(bytes, 0, at, at + size);
      bytes.writeUInt8((bytes.readUInt8(0) + random.pick([1, 255])) & 0xff);
      break;
    case 2:
      file.copy(bytes, 0, random.below(Math.max(1, Math.min(file.length - 8, 4096))));
      break;
    case 3: {
      file.copy(bytes, 0, at, at + size);
      const bit = random.below(size * 8);
      bytes[bit >> 3] = bytes[bit >> 3]! ^ (1 << (bit & 7));
      break;
    }
    default:
      random.bytes(8).copy(bytes);
  }
  return bytes.subarray(0, size);
}

/** Opens and uses an image; throws for everything but a `DiskError`. */
function useImage(path: string, random: Random): 'refused' | 'opened' {
  let images: DiskImage[];
  try {
    images = openChain(path);
  } catch (error) {
    if (error instanceof DiskError) return 'refused';
    throw error;
  }
  const base = new ImageBase(images);
  try {
    if (base.virtualSize < 1 || !Number.isSafeInteger(base.virtualSize)) {
      throw new Error(`virtual size ${base.virtualSize}`);
    }
    walkExtents(base, random);
    for (let round = 0; round < 6; round += 1) {
      const offset = Math.min(base.virtualSize - 1, random.below(base.virtualSize));
      const length = 1 + random.below(Math.min(base.virtualSize - offset, MAX_READ));
      readPart(base, offset, length);
    }
    readPart(base, base.virtualSize - 1, 1);
    for (const image of images) useAlone(image, random);
  } finally {
    base.close();
  }
  return 'opened';
}

function walkExtents(base: ImageBase, random: Random): void {
  const extent: Extent = { state: 'data', length: 0 };
  let at = 0;
  for (let count = 0; count < MAX_EXTENTS && at < base.virtualSize; count += 1) {
    const left = base.virtualSize - at;
    if (!passes(() => base.extentAt(at, left, extent))) {
      at += 1 + random.below(Math.min(left, 1 << 20));
      continue;
    }
    if (!(extent.length >= 1 && extent.length <= left)) {
      throw new Error(`extent at ${at} of ${base.virtualSize} has length ${extent.length}`);
    }
    const bytes = readPart(base, at, Math.min(extent.length, 1024));
    if (extent.state !== 'data' && bytes?.some((byte) => byte !== 0)) {
      throw new Error(`extent at ${at} is ${extent.state}, but does not read as zeroes`);
    }
    at += extent.length;
  }
}

/** Facts of one image, and whether data lies where it says. */
function useAlone(image: DiskImage, random: Random): void {
  passes(() => image.info());
  const at = Math.min(image.virtualSize - 1, random.below(image.virtualSize));
  const extent: Extent = { state: 'data', length: 0 };
  if (!passes(() => image.extentAt(at, 1, extent)) || extent.state !== 'data') return;
  const read = Buffer.alloc(1);
  const place = image.locate?.(at);
  if (!passes(() => image.readAt(read, 0, at, 1)) || place?.offset === undefined) return;
  const raw = Buffer.alloc(1);
  const fd = openSync(place.file, 'r');
  const count = readSync(fd, raw, 0, 1, place.offset);
  closeSync(fd);
  if (count !== 1 || raw[0] !== read[0]) throw new Error(`byte ${at} is not where locate says`);
}

function readPart(base: ImageBase, offset: number, length: number): Buffer | undefined {
  const bytes = Buffer.alloc(length, 0xee);
  return passes(() => base.readAt(bytes, 0, offset, length)) ? bytes : undefined;
}

/** False when a `DiskError` came; anything else is a bug and goes on. */
function passes(work: () => void): boolean {
  try {
    work();
    return true;
  } catch (error) {
    if (error instanceof DiskError) return false;
    throw error;
  }
}
