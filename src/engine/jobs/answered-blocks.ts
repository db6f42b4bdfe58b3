/** Which blocks deltas answer for by themselves, hiding what lies below. Background thread. */
import { DiskError, errnoName } from '../../common/errors.js';
import type { DeltaFiles } from '../delta/delta-files.js';
import type { DeltaId } from '../delta-id.js';
import type { BlockRange } from '../engine.js';
import { scanCommitted } from './delta-index.js';

export interface AnsweredJob {
  readonly deltas: readonly DeltaId[];
  readonly ranges: readonly BlockRange[];
}

/** @returns for each delta and each range, a bit for every block that the delta has a tuple of. */
export function answeredBlocks(files: DeltaFiles, { deltas, ranges }: AnsweredJob): Uint8Array[][] {
  return deltas.map((id) => {
    const bits = emptyBits(ranges);
    try {
      scanCommitted(files, id, ({ block, count }) => {
        for (const [index, range] of ranges.entries()) {
          const end = Math.min(block + count, range.block + range.blocks);
          for (let at = Math.max(block, range.block); at < end; at += 1) {
            bits[index]![(at - range.block) >>> 3]! |= 1 << ((at - range.block) & 7);
          }
        }
      });
      return bits;
    } catch (error) {
      // Damaged or missing, which has a finding of its own: it is not known to hide anything.
      if (error instanceof DiskError || errnoName(error) !== undefined) return emptyBits(ranges);
      throw error;
    }
  });
}

function emptyBits(ranges: readonly BlockRange[]): Uint8Array[] {
  return ranges.map(({ blocks }) => new Uint8Array(Math.ceil(blocks / 8)));
}
