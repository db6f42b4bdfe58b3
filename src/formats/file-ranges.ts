/** Sets of byte ranges in an image file: its own tables, where no data can lie. */
import { DiskError } from '../common/errors.js';

export interface NamedRange {
  readonly name: string;
  readonly offset: number;
  readonly length: number;
}

/**
 * A few ranges that do not overlap, sorted; `overlap` costs a binary search and allocates nothing.
 */
export class FileRanges {
  readonly #starts: Float64Array;
  readonly #ends: Float64Array;

  /**
   * Ranges of length 0 are left out.
   * @throws DiskError `damaged`, naming two of the ranges, when they overlap.
   */
  constructor(path: string, ranges: readonly NamedRange[]) {
    const sorted = ranges
      .filter((range) => range.length > 0)
      .sort((one, other) => one.offset - other.offset);
    for (const [index, range] of sorted.entries()) {
      const before = sorted[index - 1];
      if (before !== undefined && before.offset + before.length > range.offset) {
        throw new DiskError('damaged', `${path}: ${range.name} overlaps ${before.name}`, {
          errno: 'EIO',
        });
      }
    }
    this.#starts = Float64Array.from(sorted, (range) => range.offset);
    this.#ends = Float64Array.from(sorted, (range) => range.offset + range.length);
  }

  /** Whether any byte of `length` (at least 1) at `offset` lies in one of the ranges. */
  overlap(offset: number, length: number): boolean {
    return this.nextAt(offset) < offset + length;
  }

  /** Where the range begins that ends first behind `offset`; infinity when none does. */
  nextAt(offset: number): number {
    return this.#starts[firstAbove(this.#ends, offset)] ?? Number.POSITIVE_INFINITY;
  }
}

/** Offsets or numbers of places in a file. */
export type Places = Float64Array | Uint32Array;

/** Index of the first of the ascending `values` that is above `limit`; their count when none is. */
export function firstAbove(values: Places, limit: number): number {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (values[middle]! > limit) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** Whether `value` is among the ascending `values`. */
export function includesSorted(values: Places, value: number): boolean {
  const index = firstAbove(values, value);
  return index > 0 && values[index - 1] === value;
}

/** Whether `value` is at least twice among the ascending `values`. */
export function isRepeated(values: Places, value: number): boolean {
  const index = firstAbove(values, value);
  return index > 1 && values[index - 2] === value;
}
