/** What a power cut leaves in the tuple file of a delta, made by hand: for tests of one engine. */
import { closeSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { Test } from 'tap';
import { BLOCK_SIZE, MiB } from '../../src/common/units.js';
import {
  decodeHeader,
  encodeHeader,
  HEADER_OFFSETS,
  HEADER_SIZE,
} from '../../src/engine/delta/delta-layout.js';
import type { DeltaId } from '../../src/engine/delta-id.js';
import type { Volume } from '../../src/engine/volume/volume.js';
import { ScratchEngine } from './engine.js';

export const SIZE = MiB;

export async function makeDisk(
  t: Test,
): Promise<{ scratch: ScratchEngine; head: DeltaId; tuples: string }> {
  const scratch = new ScratchEngine();
  t.teardown(() => scratch.close());
  const spec = { below: { kind: 'none' }, virtualSize: SIZE, allocation: 'dynamic' } as const;
  const head = await scratch.engine.deltas.create(spec);
  return { scratch, head, tuples: join(scratch.folder, 'deltas', `${head}.tuples`) };
}

export async function open(
  scratch: ScratchEngine,
  top: DeltaId,
  how = { writable: true },
): Promise<Volume> {
  const { handle } = await scratch.engine.volumes.acquire(top, how);
  return scratch.volumeOf(handle);
}

export function block(value: number): Buffer {
  return Buffer.alloc(BLOCK_SIZE, value);
}

export function readBlock(volume: Volume, index: number): Buffer {
  const bytes = Buffer.alloc(BLOCK_SIZE, 0xee);
  volume.read(bytes, 0, index * BLOCK_SIZE, BLOCK_SIZE);
  return bytes;
}

/**
 * Makes both header copies look as if they were written in another cache epoch: after a power cut.
 */
export function changeEpoch(tuples: string): void {
  const file = readFileSync(tuples);
  for (const offset of HEADER_OFFSETS) {
    const header = decodeHeader(file.subarray(offset, offset + HEADER_SIZE), tuples);
    if (header === undefined) continue;
    encodeHeader({ ...header, cacheEpoch: 'f'.repeat(32) }).copy(file, offset);
  }
  writeFileSync(tuples, file);
}

/**
 * Takes back the copy of the header that a commit writes last, as a power cut during its sync does.
 */
export function loseMirror(tuples: string, before: Buffer): void {
  const file = readFileSync(tuples);
  const { generation } = decodeHeader(file.subarray(0, HEADER_SIZE), tuples)!;
  const other = HEADER_OFFSETS[(generation + 1) % 2]!;
  before.copy(file, other, other, other + HEADER_SIZE);
  writeFileSync(tuples, file);
}

/** Turns one byte over. */
export function spoil(path: string, offset: number): void {
  const byte = readFileSync(path)[offset]! ^ 0xff;
  const fd = openSync(path, 'r+');
  try {
    writeSync(fd, Buffer.from([byte]), 0, 1, offset);
  } finally {
    closeSync(fd);
  }
}
