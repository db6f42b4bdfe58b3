/**
 * Giving back the space of zeroes that somebody wrote: in the data files of sealed deltas, blocks
 * that hold nothing but zeroes become holes. Background thread; safe to repeat and to break off at
 * any point.
 *
 * No byte that anybody can read changes, and no tuple or checksum: a hole reads as zero. So it
 * minds neither readers, nor who gives back or merges the same delta, nor a power cut. A sealed
 * delta is written to by nobody, so nothing comes between the look at a block and its hole.
 */
import { closeSync, fstatSync } from 'node:fs';
import { DiskError } from '../../common/errors.js';
import { BLOCK_SIZE } from '../../common/units.js';
import { isZero, MOST_ZEROES } from '../../common/zeroes.js';
import { readPadded } from '../../storage/exact-io.js';
import { seekData, seekHole } from '../../storage/sparse-file.js';
import { punchHole } from '../../storage/sparse-space.js';
import { requireStored } from '../../storage/stored-file.js';
import type { DeltaFiles } from '../delta/delta-files.js';
import type { DeltaId } from '../delta-id.js';
import type { Compacted, JobWork } from '../engine.js';
import { Pace } from './pace.js';

export interface CompactJob {
  /** Sealed ones, which the caller keeps from being removed. A static one keeps its space. */
  readonly deltas: readonly DeltaId[];
}

/** Looked at in one call, bytes. */
const CHUNK = MOST_ZEROES;

interface Run {
  readonly pace: Pace;
  readonly buffer: Buffer;
  readonly total: number;
  readonly work: JobWork;
  bytesRead: number;
}

/** @throws DiskError `interrupted` when cancelled; `failed` when the host refuses a hole. */
export async function punchZeroes(
  files: DeltaFiles,
  { deltas }: CompactJob,
  work: JobWork = {},
): Promise<Compacted> {
  const pace = new Pace({ ...work, pressing: true });
  const opened = deltas.flatMap((id) => openDynamic(files, id));
  const total = opened.reduce((sum, { bytes }) => sum + bytes, 0);
  const run: Run = { pace, buffer: Buffer.alloc(CHUNK), total, work, bytesRead: 0 };
  const problems: string[] = [];
  for (const { path } of opened) {
    const problem = await punchFile(path, run);
    if (problem !== undefined) problems.push(problem);
  }
  return { bytesRead: run.bytesRead, problems };
}

/** @returns nothing for one that promises its space. */
function openDynamic(files: DeltaFiles, id: DeltaId): { path: string; bytes: number }[] {
  const header = files.readHeader(id).current;
  if (!header.sealed || header.allocation === 'static') return [];
  const path = files.dataPath(id, header.dataGeneration);
  return [{ path, bytes: files.storedSize(header) }];
}

/** @returns what could not be read, which stays as it is. */
async function punchFile(path: string, run: Run): Promise<string | undefined> {
  let data: number;
  try {
    data = requireStored(path, 'r+');
  } catch (error) {
    // As a bad sector below: one file that is gone is no reason to leave all the others.
    if (error instanceof DiskError) return error.message;
    throw error;
  }
  let problem: string | undefined;
  try {
    const { size } = fstatSync(data);
    for (let at = seekData(data, 0); at >= 0 && at < size; at = seekData(data, at)) {
      // Where the host's blocks are smaller than ours a run may begin inside one of ours.
      const first = at - (at % BLOCK_SIZE);
      const end = Math.min(first + CHUNK, Math.max(seekHole(data, at, size), at + 1));
      at = Math.ceil(end / BLOCK_SIZE) * BLOCK_SIZE;
      problem = punchChunk(data, first, at - first, run.buffer) ?? problem;
      run.bytesRead += at - first;
      run.work.onProgress?.(run.bytesRead, Math.max(run.bytesRead, run.total));
      await run.pace.rest();
    }
  } finally {
    closeSync(data);
  }
  return problem === undefined ? undefined : `${path}: ${problem}`;
}

/** Looks at whole blocks from `first` on. */
function punchChunk(
  data: number,
  first: number,
  length: number,
  buffer: Buffer,
): string | undefined {
  try {
    readPadded(data, buffer, 0, length, first, 'compact.read');
  } catch (error) {
    // A bad sector is no reason to leave all the rest: the caller tells of it.
    if (error instanceof DiskError) return error.message;
    throw error;
  }
  for (let at = 0; at < length; ) {
    const zeroes = zeroesFrom(buffer, at, length);
    if (zeroes > 0) punchHole(data, first + at, zeroes, 'compact.punch');
    at += Math.max(zeroes, BLOCK_SIZE);
  }
  return undefined;
}

/** Bytes of the blocks in a row that are zero. */
function zeroesFrom(buffer: Buffer, at: number, end: number): number {
  // All of it at once where all of it is zero, as where somebody filled a disk with them.
  if (isZero(buffer, at, end - at)) return end - at;
  let length = 0;
  while (at + length < end && isZero(buffer, at + length, BLOCK_SIZE)) length += BLOCK_SIZE;
  return length;
}
