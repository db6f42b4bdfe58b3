/**
 * Reads that are checked against their checksums: wrong bytes are EIO and reported, never an
 * answer; what is whole, or has no checksum, is read as ever.
 */
import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { DiskError } from '../../src/common/errors.js';
import { BLOCK_SIZE } from '../../src/common/units.js';
import type { DeltaId } from '../../src/engine/delta-id.js';
import { ScratchEngine } from '../support/engine.js';
import { createRandom, newSeed, type Random } from '../support/random.js';
import { Tally, triesOr } from '../torture/tally.js';

/** More than one page of checksums. */
const BLOCKS = 1100;
/** No whole number of blocks: the last one is cut by the end of the disk. */
const SIZE = (BLOCKS - 1) * BLOCK_SIZE + 512;
const TRIES = triesOr(150);

interface Disk {
  readonly scratch: ScratchEngine;
  readonly sealed: DeltaId;
  readonly head: DeltaId;
  readonly bytes: Buffer;
}

/** One sealed delta that holds everything, with an empty head on it. */
async function makeDisk(t: Test, random: Random): Promise<Disk> {
  const scratch = new ScratchEngine({ verifyReads: true });
  t.teardown(() => scratch.close());
  const { deltas, volumes, health } = scratch.engine;
  const spec = { virtualSize: SIZE, allocation: 'dynamic' } as const;
  const sealed = await deltas.create({ below: { kind: 'none' }, ...spec });
  const bytes = random.bytes(SIZE);
  const open = await volumes.acquire(sealed, { writable: true });
  scratch.volumeOf(open.handle).write(bytes, 0, 0, SIZE);
  const head = await deltas.create({ below: { kind: 'delta', id: sealed }, ...spec });
  await volumes.switchHeads([{ from: sealed, to: head }], () => {});
  volumes.release(open);
  await health.sum({});
  return { scratch, sealed, head, bytes };
}

function fileOf({ scratch, sealed }: Disk, ending: string): string {
  return join(scratch.folder, 'deltas', `${sealed}.${ending}`);
}

/** Flips a bit in place; again, and it is as it was. */
function flip(path: string, offset: number, bit: number): void {
  const fd = openSync(path, 'r+');
  try {
    const byte = Buffer.alloc(1);
    readSync(fd, byte, 0, 1, offset);
    byte[0]! ^= 1 << bit;
    writeSync(fd, byte, 0, 1, offset);
  } finally {
    closeSync(fd);
  }
}

/** @returns what a read shows, or the errno it was refused with. */
function read(disk: Disk, handle: number, offset: number, length: number): Buffer | string {
  const found = Buffer.alloc(length, 0xee);
  try {
    disk.scratch.volumeOf(handle).read(found, 0, offset, length);
    return found;
  } catch (error) {
    if (!(error instanceof DiskError) || error.errno === undefined) throw error;
    return error.errno;
  }
}

function readWhole(disk: Disk, handle: number): Buffer {
  const found = read(disk, handle, 0, SIZE);
  if (typeof found === 'string') throw new Error(`refused: ${found}`);
  return found;
}

/** A range around a byte, of any alignment. */
function rangeAround(random: Random, at: number): { offset: number; length: number } {
  const offset = Math.max(0, at - random.below(3 * BLOCK_SIZE));
  return { offset, length: Math.min(SIZE - offset, at - offset + 1 + random.below(BLOCK_SIZE)) };
}

t.test('a flipped bit is EIO wherever a read touches its block, and nowhere else', async (t) => {
  const seed = newSeed();
  t.comment(`LAYERDISK_SEED=${seed}`);
  const random = createRandom(seed);
  const tally = new Tally(t);
  const disk = await makeDisk(t, random);
  const { volumes } = disk.scratch.engine;
  const open = await volumes.acquire(disk.head, { writable: true });
  t.teardown(() => volumes.release(open));
  for (let index = 0; index < TRIES; index += 1) {
    const at = random.below(SIZE);
    const bit = random.below(8);
    flip(fileOf(disk, '1.data'), at, bit);
    const { offset, length } = rangeAround(random, at);
    const found = read(disk, open.handle, offset, length);
    tally.judge(
      `byte ${at}, read ${length} at ${offset}`,
      found === 'EIO' ? undefined : 'no error',
    );
    const block = at - (at % BLOCK_SIZE);
    const after = Math.min(SIZE, block + BLOCK_SIZE);
    for (const [from, to] of [
      [Math.max(0, block - 5000), block],
      [after, Math.min(SIZE, after + 5000)],
    ] as const) {
      const wanted = disk.bytes.subarray(from, to);
      const beside = read(disk, open.handle, from, to - from);
      if (typeof beside === 'string' || !beside.equals(wanted)) tally.lost(`beside block ${block}`);
    }
    flip(fileOf(disk, '1.data'), at, bit);
  }
  t.ok(disk.bytes.equals(readWhole(disk, open.handle)), 'whole again');
  t.ok(disk.scratch.errors.length > 0, 'what was found was reported');
  t.match(String(disk.scratch.errors[0]), /is not what was sealed: its readers get EIO/);
  tally.print();
});

t.test('what cannot be judged is served, and said', async (t) => {
  const random = createRandom(newSeed());
  const disk = await makeDisk(t, random);
  const { volumes } = disk.scratch.engine;
  // The second page of checksums, after the header and the first.
  flip(fileOf(disk, 'sums'), 2 * BLOCK_SIZE + 9, 1);
  const open = await volumes.acquire(disk.head, { writable: true });
  t.ok(disk.bytes.equals(readWhole(disk, open.handle)));
  t.match(String(disk.scratch.errors), /the checksum of slot 1023 is damaged/);
  flip(fileOf(disk, '1.data'), 7, 1);
  t.equal(read(disk, open.handle, 0, 8), 'EIO', 'the first page is whole');
  volumes.release(open);
});

t.test('heads are read as they are; a delta is verified once it has checksums', async (t) => {
  const random = createRandom(newSeed());
  const disk = await makeDisk(t, random);
  const { deltas, volumes, health } = disk.scratch.engine;
  const open = await volumes.acquire(disk.head, { writable: true });
  const block = random.bytes(BLOCK_SIZE);
  disk.scratch.volumeOf(open.handle).write(block, 0, 0, BLOCK_SIZE);
  const path = join(disk.scratch.folder, 'deltas', `${disk.head}.1.data`);
  flip(path, 100, 0);
  t.type(read(disk, open.handle, 0, BLOCK_SIZE), Buffer, 'a head has no checksums');
  flip(path, 100, 0);
  const below = { kind: 'delta', id: disk.head } as const;
  const next = await deltas.create({ below, virtualSize: SIZE, allocation: 'dynamic' });
  await volumes.switchHeads([{ from: disk.head, to: next }], () => {});
  await health.sum({});
  flip(path, 100, 0);
  t.equal(read(disk, open.handle, 0, BLOCK_SIZE), 'EIO', 'the open disk knows the new checksums');
  volumes.release(open);
});

t.test('blocks that were given back are no rot, also where they are read along', async (t) => {
  const disk = await makeDisk(t, createRandom(newSeed()));
  const { engine, errors } = disk.scratch;
  const open = await engine.volumes.acquire(disk.head, { writable: true });
  const volume = disk.scratch.volumeOf(open.handle);
  const written = Buffer.alloc(BLOCK_SIZE, 7);
  for (const block of [3, 20, 1050]) {
    volume.write(written, 0, block * BLOCK_SIZE, BLOCK_SIZE);
    written.copy(disk.bytes, block * BLOCK_SIZE);
  }
  volume.flush();
  t.ok(readWhole(disk, open.handle).equals(disk.bytes));
  const reached = new Set([disk.sealed, disk.head]);
  const { bytes } = await engine.reclaim({ reached, labelled: new Set([disk.head]) });
  t.equal(bytes, 3 * BLOCK_SIZE);
  t.ok(readWhole(disk, open.handle).equals(disk.bytes));
  t.same(errors, [], 'nothing is said to have rotted');
  engine.volumes.release(open);
});
