/** Feeds an image reader thousands of damaged images, which must do no more than fail. */
import type { Test } from 'tap';
import { DiskError } from '../../src/common/errors.js';
import type { DiskImage, Extent } from '../../src/engine/disk-image.js';
import { Tally } from '../torture/tally.js';
import { createRandom, newSeed, type Random } from './random.js';

export interface FuzzSubject {
  readonly name: string;
  /** A sound image. */
  readonly bytes: Buffer;
  /** Where its headers and tables lie: offset and length. Also where checksums are. */
  readonly tables: readonly (readonly [number, number])[];
  /**
   * Repairs checksums after a mutation, so that what lies behind them is reached too; called for
   * every other mutant.
   */
  readonly reseal?: (bytes: Buffer) => void;
  readonly open: (bytes: Buffer) => DiskImage;
}

const RUNS_WALKED = 300;
const READS = 12;
const MAX_READ = 200_000;
/** Where all reads go: one each would be most of the memory that is measured. */
const TARGET = Buffer.alloc(MAX_READ);
/** Most that one image of a few hundred KiB may take, whatever its header claims. */
const MEMORY_LIMIT = 64 * 1024 * 1024;
/** A word that is written at the end of a table reaches over it by less than this. */
const SPILL = 8;
/** Values that have broken readers: written over 1, 2, 4 or 8 bytes. */
const WORDS = [
  0n,
  1n,
  0x1ffn,
  0x7fffn,
  0xffffn,
  0x10000n,
  0x7fffffffn,
  0x80000000n,
  0xffffffffn,
  0x100000000n,
  0x7fffffffffffffffn,
  0x8000000000000000n,
  0xffffffffffffffffn,
  0x40000000ffffffffn,
];

/**
 * Every few rounds: a turn of the event loop. What native code has given up (descriptors of files,
 * streams of zlib, memory of buffers) goes only then, and a loop without turns grows without end.
 */
export async function breathe(round: number): Promise<void> {
  if (round % 64 === 0) await new Promise((resolve) => setImmediate(resolve));
}

/**
 * Runs `count` mutants spread over the subjects, each a try. Prints the seed; LAYERDISK_SEED
 * replays it.
 */
export async function fuzzImages(
  t: Test,
  subjects: readonly FuzzSubject[],
  count: number,
): Promise<void> {
  const seed = newSeed();
  t.comment(`seed ${seed}: LAYERDISK_SEED=${seed} replays it`);
  const random = createRandom(seed);
  let mostMemory = 0;
  const tally = new Tally(t);
  const outcomes = { refused: 0, failedReads: 0, sound: 0 };
  const copies = subjects.map(({ bytes }) => Buffer.from(bytes));
  for (let round = 0; round < count; round += 1) {
    await breathe(round);
    const subject = subjects[round % subjects.length]!;
    const copy = copies[round % subjects.length]!;
    for (const [start, length] of subject.tables) {
      subject.bytes.copy(copy, start, start, start + length + SPILL);
    }
    const mutant = mutate(subject, copy, random, round);
    const before = memoryUsed();
    tally.tried();
    try {
      tryMutant(subject, mutant, random, outcomes);
    } catch (error) {
      const what = error instanceof Error ? error.stack : String(error);
      tally.lost(`${subject.name}, round ${round}, seed ${seed}: ${what}`);
      break;
    }
    mostMemory = Math.max(mostMemory, memoryUsed() - before);
  }
  t.ok(mostMemory < MEMORY_LIMIT, `no image took more than ${mostMemory} bytes`);
  t.comment(`${count} mutants: ${JSON.stringify(outcomes)}`);
  t.ok(outcomes.refused > 0 && outcomes.sound > 0, 'mutants of every kind were met');
  tally.print();
}

function memoryUsed(): number {
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

/** Changes the copy in place; what comes out may be a part of it. */
function mutate(subject: FuzzSubject, bytes: Buffer, random: Random, round: number): Buffer {
  const changes = 1 + random.below(4);
  for (let change = 0; change < changes; change += 1) {
    const [start, length] = random.pick(subject.tables);
    const at = start + random.below(length);
    const kind = random.below(4);
    if (kind === 0) bytes[at]! ^= 1 << random.below(8);
    else if (kind === 1) bytes[at] = random.below(256);
    else writeWord(bytes, random.pick(WORDS), at - (at % 4), random);
  }
  // Half as often as the subjects come round, so that each gets both.
  if (Math.floor(round / 64) % 2 === 0) subject.reseal?.(bytes);
  return random.below(20) === 0 ? bytes.subarray(0, random.below(bytes.length)) : bytes;
}

function writeWord(bytes: Buffer, value: bigint, at: number, random: Random): void {
  const width = random.pick([1, 2, 4, 8]);
  const word = Buffer.alloc(8);
  if (random.below(2) === 0) word.writeBigUInt64LE(value);
  else word.writeBigUInt64BE(value);
  const from = random.below(2) === 0 ? 0 : 8 - width;
  word.copy(bytes, at, from, from + width);
}

function tryMutant(
  subject: FuzzSubject,
  mutant: Buffer,
  random: Random,
  outcomes: { refused: number; failedReads: number; sound: number },
): void {
  let image: DiskImage;
  try {
    image = subject.open(mutant);
  } catch (error) {
    checkError(error);
    outcomes.refused += 1;
    return;
  }
  const failed = use(image, random);
  image.close();
  if (failed === 0) outcomes.sound += 1;
  else outcomes.failedReads += failed;
}

/**
 * Looks at and reads from an image that opened; answers how many calls failed with an error of
 * ours.
 */
function use(image: DiskImage, random: Random): number {
  const extent: Extent = { state: 'data', length: 0 };
  let failed = attempt(() => image.info().identity);
  let at = 0;
  for (let run = 0; run < RUNS_WALKED && at < image.virtualSize; run += 1) {
    const length = image.virtualSize - at;
    failed += attempt(() => askExtent(image, at, length, extent));
    at += extent.length;
    extent.length = 1;
  }
  for (let read = 0; read < READS && image.virtualSize > 0; read += 1) {
    // Small disks are what the images were; a mutant may claim any size.
    const range = read % 2 === 0 ? Math.min(image.virtualSize, 1 << 22) : image.virtualSize;
    const offset = random.below(range);
    const length = 1 + random.below(Math.min(MAX_READ, image.virtualSize - offset));
    failed += attempt(() => readAllowed(image, TARGET, offset, length, extent));
    failed += attempt(() => image.locate?.(offset));
  }
  return failed;
}

function askExtent(image: DiskImage, offset: number, length: number, extent: Extent): void {
  image.extentAt(offset, length, extent);
  if (!(extent.length >= 1 && extent.length <= length)) {
    throw new Error(`extent of ${extent.length} bytes at ${offset}, ${length} were asked for`);
  }
}

function readAllowed(
  image: DiskImage,
  target: Buffer,
  offset: number,
  length: number,
  extent: Extent,
): void {
  let done = 0;
  while (done < length) {
    askExtent(image, offset + done, length - done, extent);
    if (extent.state !== 'unallocated') image.readAt(target, done, offset + done, extent.length);
    done += extent.length;
  }
}

function attempt(work: () => unknown): number {
  try {
    work();
    return 0;
  } catch (error) {
    checkError(error);
    return 1;
  }
}

/** Only our own errors, on one line, may come out. */
function checkError(error: unknown): void {
  if (!(error instanceof DiskError)) throw error;
  if (error.message.includes('\n')) throw new Error(`two lines: ${error.message}`);
}
