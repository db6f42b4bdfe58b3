/** What differs between two states of a disk, in blocks: as it is answered, page by page. */

import { Joiner } from './joiner.js';

/** A run of blocks that differ. Bytes; the last block of a disk may be cut short by its end. */
export interface DiffExtent {
  readonly start: number;
  readonly length: number;
  /** Whether it reads as zeroes in the later state, or lies beyond its end. */
  readonly zero: boolean;
}

/** A part of the differences of one disk. */
export interface DiffPart {
  readonly extents: readonly DiffExtent[];
  /** Where the next part begins; absent at the end of the disk. */
  readonly next?: number;
}

/** Where an answer goes on. */
export interface DiffPlace {
  readonly disk: string;
  readonly start: number;
}

export interface DiskDiff {
  readonly disk: string;
  /** Absent: the disk is not in that state, and was not compared. */
  readonly fromSize?: number;
  readonly toSize?: number;
  /** Of the extents in this answer; of a disk that only one state has, its size. */
  readonly changedBytes: number;
  readonly extents: readonly DiffExtent[];
}

/** What differs between two states of a VM; with `next` there is more. */
export interface DiffPage {
  readonly vm: string;
  /** A snapshot. */
  readonly from: string;
  /** Another one; absent: the present state. */
  readonly to?: string;
  readonly disks: readonly DiskDiff[];
  readonly next?: DiffPlace;
}

/** Whether `next` goes on where `extent` ends. */
function continues(extent: DiffExtent, next: DiffExtent): boolean {
  return extent.start + extent.length === next.start && extent.zero === next.zero;
}

/** Makes one extent of those that continue each other, across pages; holds one back at a time. */
export class DiffJoiner extends Joiner<DiffExtent> {
  constructor() {
    super(continues);
  }
}

/** The extents of one part, of which there may be `limit`. */
export class DiffCollector {
  readonly extents: DiffExtent[] = [];
  readonly #limit: number;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** @returns false when there is no room for it: the part ends before it. */
  add(extent: DiffExtent): boolean {
    const last = this.extents.at(-1);
    if (last !== undefined && continues(last, extent)) {
      this.extents[this.extents.length - 1] = { ...last, length: last.length + extent.length };
      return true;
    }
    if (this.extents.length >= this.#limit) return false;
    this.extents.push(extent);
    return true;
  }
}
