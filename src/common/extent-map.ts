/** Maps of a disk: which bytes lie where, in the words of `qemu-img map`. */

import { Joiner } from './joiner.js';

/** A run of the disk with one answer. Offsets and lengths are bytes. */
export interface MapExtent {
  readonly start: number;
  readonly length: number;
  /** How far down the chain the answer was found: 0 is the top. */
  readonly depth: number;
  /** Whether anything in the chain answers; what is not present reads as zeroes. */
  readonly present: boolean;
  /** Whether it is known to read as zeroes. */
  readonly zero: boolean;
  /** Whether bytes are stored for it. */
  readonly data: boolean;
  /** True where the bytes are stored compressed. */
  readonly compressed?: true;
  /** Of a VM's disk: the id of the delta that answers, or the path of the base image. */
  readonly layer?: string;
  /** The file that holds the bytes. */
  readonly file?: string;
  /** Where in the file they begin; absent where they cannot be found there as they are. */
  readonly offset?: number;
}

/** Whether `next` begins where `extent` ends, with the same answer going on. */
function continues(extent: MapExtent, next: MapExtent): boolean {
  return (
    extent.start + extent.length === next.start &&
    extent.depth === next.depth &&
    extent.present === next.present &&
    extent.zero === next.zero &&
    extent.data === next.data &&
    extent.compressed === next.compressed &&
    extent.layer === next.layer &&
    extent.file === next.file &&
    (extent.offset === undefined
      ? next.offset === undefined
      : extent.offset + extent.length === next.offset)
  );
}

/** Makes one extent of those that continue each other; holds one back at a time. */
export class ExtentJoiner extends Joiner<MapExtent> {
  constructor() {
    super(continues);
  }
}

/** A part of a map. */
export interface MapPage {
  readonly extents: readonly MapExtent[];
  /** Where the next part begins; absent at the end of the disk. */
  readonly next?: number;
}

export interface MapRange {
  /** Byte at which the page begins. */
  readonly start: number;
  /** The disk's end. */
  readonly end: number;
  /** Most extents of the page. */
  readonly limit: number;
  /** A page is complete after so long, milliseconds: its maker has other things to do. */
  readonly maxMs: number;
}

/** Pieces between two looks at the clock. */
const PIECES_PER_LOOK = 64;
/** Characters of names in one page, so that it stays a message of less than 1 MiB. */
const MAX_PAGE_NAMES = 200_000;

/** Puts a page together; bounded in extents, bytes and time, but never empty. */
export function collectPage(range: MapRange, pieceAt: (offset: number) => MapExtent): MapPage {
  const extents: MapExtent[] = [];
  const joiner = new ExtentJoiner();
  const began = performance.now();
  let nameLength = 0;
  let at = range.start;
  const take = (extent: MapExtent | undefined) => {
    if (extent === undefined) return;
    extents.push(extent);
    nameLength += (extent.file?.length ?? 0) + (extent.layer?.length ?? 0);
  };
  for (let pieces = 1; at < range.end; pieces += 1) {
    const piece = pieceAt(at);
    take(joiner.add(piece));
    at += piece.length;
    // One more is held back by the joiner.
    if (extents.length + 1 >= range.limit || nameLength > MAX_PAGE_NAMES) break;
    if (pieces % PIECES_PER_LOOK === 0 && performance.now() - began > range.maxMs) break;
  }
  take(joiner.end());
  return { extents, ...(at < range.end ? { next: at } : {}) };
}
