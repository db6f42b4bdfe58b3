/** The jobs below the labels, as a background thread is given them: it knows no store. */
import { unreachable } from '../common/assert.js';
import { DeltaFiles } from './delta-files.js';
import type { DeltaId } from './delta-id.js';
import { type MergeJob, mergeRow } from './merge.js';
import { type ReclaimJob, reclaimDelta } from './reclaim.js';

export interface TidyOrder {
  /** Folder of the delta files. */
  readonly folder: string;
  readonly epoch: string;
  readonly job:
    | ({ readonly kind: 'reclaim' } & ReclaimJob)
    | ({ readonly kind: 'merge' } & MergeJob);
}

export interface TidyOutcome {
  /** Bytes that `reclaim` gave back. */
  readonly bytes: number;
  /** The delta that `merge` made. */
  readonly made?: DeltaId;
}

export async function tidyDeltas({ folder, epoch, job }: TidyOrder): Promise<TidyOutcome> {
  const files = new DeltaFiles(folder, epoch);
  switch (job.kind) {
    case 'reclaim':
      return { bytes: reclaimDelta(files, job) };
    case 'merge':
      return { bytes: 0, made: await mergeRow(files, job) };
    default:
      return unreachable(job);
  }
}
