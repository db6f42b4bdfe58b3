/**
 * Computing the checksums of sealed deltas that have none yet. Background thread; safe to break off
 * and to repeat: a delta has all of its checksums or none.
 *
 * What is read here is taken for right: checksums begin with the sealing, not with the write
 * (DELTA-FORMAT.md, "What is covered").
 */
import { closeSync, fstatSync } from 'node:fs';
import { DiskError, errnoName } from '../../common/errors.js';
import { BLOCK_SIZE, MiB } from '../../common/units.js';
import { readPadded } from '../../storage/exact-io.js';
import { requireStored } from '../../storage/stored-file.js';
import type { DeltaFiles } from '../delta/delta-files.js';
import type { DeltaHeader } from '../delta/delta-layout.js';
import { settleCopies } from '../delta/header-copies.js';
import { hasSums, SumsWriter } from '../delta/sums-file.js';
import { slotSum } from '../delta/sums-layout.js';
import type { DeltaId } from '../delta-id.js';
import type { JobWork, Summed } from '../engine.js';
import { DeltaIndex } from './delta-index.js';
import { Pace } from './pace.js';

const CHUNK_SLOTS = MiB / 4 / BLOCK_SIZE;

export interface SumJob {
  /** The part of the time that it may take while no disk is in use. */
  readonly share: number;
}

/** @throws DiskError `interrupted` when cancelled. */
export async function sumDeltas(
  files: DeltaFiles,
  { share }: SumJob,
  work: JobWork = {},
): Promise<Summed> {
  const pace = new Pace(work, share);
  let deltas = 0;
  let again = false;
  const problems: string[] = [];
  for (const id of await files.list()) {
    await pace.rest();
    if (hasSums(files, id)) continue;
    try {
      const { current } = files.readHeader(id);
      if (!current.sealed) continue;
      settleCopies(files, id);
      if (await sumDelta(files, current, pace)) deltas += 1;
      else again = true;
    } catch (error) {
      const isKnown = error instanceof DiskError || errnoName(error) !== undefined;
      if (!isKnown || (error instanceof DiskError && error.code === 'interrupted')) throw error;
      // Else it was removed meanwhile.
      if (isThere(files, id)) problems.push(error instanceof Error ? error.message : String(error));
    }
  }
  return { deltas, problems, again };
}

function isThere(files: DeltaFiles, id: DeltaId): boolean {
  try {
    return files.readHeader(id).current.sealed;
  } catch {
    // Why is no matter: it is said elsewhere if anybody needs this delta.
    return false;
  }
}

/**
 * @returns false when its data file changed meanwhile: nothing but the giving back of blocks
 * changes a sealed one, and that must not be summed half.
 */
async function sumDelta(files: DeltaFiles, header: DeltaHeader, pace: Pace): Promise<boolean> {
  const slots = DeltaIndex.read(files, header).slotsInUse();
  const path = files.dataPath(header.id, header.dataGeneration);
  const data = requireStored(path, 'r');
  let writer: SumsWriter | undefined;
  try {
    writer = new SumsWriter(files, { ...header, slots: slots.slots });
    const before = changeMark(data);
    const buffer = Buffer.alloc(CHUNK_SLOTS * BLOCK_SIZE);
    for (const { slot, count } of slots.runs(CHUNK_SLOTS)) {
      readPadded(data, buffer, 0, count * BLOCK_SIZE, slot * BLOCK_SIZE, 'sums.read-data');
      for (let index = 0; index < count; index += 1) {
        const at = index * BLOCK_SIZE;
        writer.put(slot + index, slotSum(buffer.subarray(at, at + BLOCK_SIZE)));
      }
      await pace.rest();
    }
    // From here to the naming nothing else runs on this thread, and only it gives blocks back.
    if (changeMark(data) !== before) {
      writer.abandon();
      return false;
    }
    writer.finish();
    return true;
  } catch (error) {
    writer?.abandon();
    throw error;
  } finally {
    closeSync(data);
  }
}

/** Differs once blocks were punched out of a file. */
function changeMark(fd: number): string {
  const { ctimeNs, blocks } = fstatSync(fd, { bigint: true });
  return `${ctimeNs} ${blocks}`;
}
