/**
 * Giving back what nobody can see any more: a sealed delta without a label and with a single child
 * loses every block that the child overrides. Runs on a background thread; safe to repeat and to
 * break off at any point.
 *
 * 1. find the slots of the blocks that the child overrides, and see to it that the child's tuples
 *    are durable
 * 2. take them out of what the delta's checksums cover, durably
 * 3. punch them
 *
 * Only committed records of the child count: after a power cut the others might not be there, and
 * the block would be answered by the delta below again. The caller has seen to it that no request
 * is still reading what is punched out (`OpenVolumes.settleReaders`).
 */
import { closeSync } from 'node:fs';
import { BLOCK_SIZE, MiB } from '../../common/units.js';
import { dataBytes } from '../../storage/sparse-file.js';
import { punchHole } from '../../storage/sparse-space.js';
import { requireStored } from '../../storage/stored-file.js';
import type { DeltaFiles } from '../delta/delta-files.js';
import { SlotSet } from '../delta/slot-set.js';
import { hasSums, uncoverSlots } from '../delta/sums-file.js';
import type { DeltaId } from '../delta-id.js';
import type { JobWork } from '../engine.js';
import { DeltaIndex, scanCommitted } from './delta-index.js';
import { Pace } from './pace.js';

export interface ReclaimJob {
  /** The sealed delta that gives back. */
  readonly delta: DeltaId;
  /** Its only child. */
  readonly child: DeltaId;
  /** Records of the child that may be trusted to be durable: its committed ones, as read before. */
  readonly childRecords: number;
  /** Somebody waits for the room: nothing goes before it. */
  readonly urgent?: boolean;
  /** See `JobWork`. */
  readonly pressing?: boolean;
}

/** Slots punched by one call to the host. */
const MOST_SLOTS = (64 * MiB) / BLOCK_SIZE;

/**
 * @returns bytes of data that this gave back.
 * @throws DiskError what reading the two logs throws.
 */
export async function reclaimDelta(
  files: DeltaFiles,
  job: ReclaimJob,
  work: JobWork = {},
): Promise<number> {
  const header = files.readHeader(job.delta).current;
  const hidden = hiddenSlots(files, DeltaIndex.read(files, header), job);
  // A flush of the child may be between writing the count that was read and syncing it.
  files.inherit(job.child);
  const { signal } = work;
  const { urgent, pressing } = job;
  const pace = new Pace(urgent === true ? { signal } : { ...work, pressing });
  let settled = false;
  const data = requireStored(files.dataPath(job.delta, header.dataGeneration), 'r+');
  let freed = 0;
  try {
    for (const { slot, count } of hidden.runs(MOST_SLOTS)) {
      if (!settled) {
        // With damaged checksums everything stays as it is until they were seen to.
        if (!uncoverSlots(files, header, hidden)) break;
        // Where there are none, they may be made while this rests.
        settled = hasSums(files, job.delta);
      }
      const start = slot * BLOCK_SIZE;
      const length = count * BLOCK_SIZE;
      // Most of the slots may have been punched before: by the process before this one, or for what
      // the child had then.
      const more = dataBytes(data, start, start + length);
      punchHole(data, start, length, 'reclaim.punch');
      freed += more;
      await pace.rest();
    }
    return freed;
  } finally {
    closeSync(data);
  }
}

/** The slots of the blocks that the child overrides. */
function hiddenSlots(files: DeltaFiles, index: DeltaIndex, job: ReclaimJob): SlotSet {
  const hidden = new SlotSet(index.slots);
  scanCommitted(files, job.child, ({ block, count }, sequence) => {
    if (sequence >= job.childRecords) return;
    for (const extent of index.extents(block, block + count)) hidden.add(extent.slot, extent.count);
  });
  return hidden;
}
