/** The long jobs on delta files, as a background thread is given them: it knows no store. */
import { unreachable } from '../../common/assert.js';
import { DeltaFiles } from '../delta/delta-files.js';
import type { DeltaId } from '../delta-id.js';
import type { CheckedDeltas, Compacted, JobWork, Summed } from '../engine.js';
import { type AnsweredJob, answeredBlocks } from './answered-blocks.js';
import { type CheckJob, checkDeltas } from './check-deltas.js';
import { type MergeJob, mergeRow } from './merge.js';
import { type CompactJob, punchZeroes } from './punch-zeroes.js';
import { type ReclaimJob, reclaimDelta } from './reclaim.js';
import { type SumJob, sumDeltas } from './sum-deltas.js';

export interface TidyOrder {
  /** Folder of the delta files. */
  readonly folder: string;
  readonly epoch: string;
  readonly job:
    | ({ readonly kind: 'reclaim' } & ReclaimJob)
    | ({ readonly kind: 'merge' } & MergeJob)
    | ({ readonly kind: 'sum' } & SumJob)
    | ({ readonly kind: 'check' } & CheckJob)
    | ({ readonly kind: 'compact' } & CompactJob)
    | ({ readonly kind: 'answered' } & AnsweredJob);
}

export interface TidyOutcome {
  /** Bytes that `reclaim` gave back. */
  readonly bytes: number;
  /** The delta that `merge` made. */
  readonly made?: DeltaId;
  readonly summed?: Summed;
  readonly checked?: CheckedDeltas;
  readonly compacted?: Compacted;
  readonly answered?: Uint8Array[][];
}

export async function tidyDeltas(order: TidyOrder, work: JobWork = {}): Promise<TidyOutcome> {
  const { folder, epoch, job } = order;
  const files = new DeltaFiles(folder, epoch);
  switch (job.kind) {
    case 'reclaim':
      return { bytes: await reclaimDelta(files, job, work) };
    case 'merge':
      return { bytes: 0, made: await mergeRow(files, job, work) };
    case 'sum':
      return { bytes: 0, summed: await sumDeltas(files, job, work) };
    case 'check':
      return { bytes: 0, checked: await checkDeltas(files, job, work) };
    case 'compact':
      return { bytes: 0, compacted: await punchZeroes(files, job, work) };
    case 'answered':
      return { bytes: 0, answered: answeredBlocks(files, job) };
    default:
      return unreachable(job);
  }
}
