/**
 * Which blocks of two volumes differ: the work of `snapshot diff`, on a background thread.
 *
 * What comes from the same place is the same and costs nothing. The rest is read from both sides
 * and compared, since a restore, a merge or a guest that writes the same again leaves equal bytes
 * in different places.
 */
import { DiffCollector, type DiffPart } from '../../common/disk-diff.js';
import { DiskError } from '../../common/errors.js';
import { alignDown, alignUp, BLOCK_SIZE, MiB } from '../../common/units.js';
import { isZero } from '../../common/zeroes.js';
import type { Extent } from '../disk-image.js';
import type { JobWork } from '../engine.js';
import { type ThreadContext, Volume, type VolumePiece } from '../volume/volume.js';
import { Pace } from './pace.js';

const CHUNK = MiB;
/** To ask for more at once would keep the thread too long where there is much. */
const MOST_ASKED = 256 * MiB;

export interface DiffOrder {
  /** Rows of open volumes. The first is sealed; the other may be written to meanwhile. */
  readonly from: number;
  readonly to: number;
  /** Byte to begin at, rounded down to a block. */
  readonly start: number;
  /** Most extents. */
  readonly limit: number;
}

/** Progress is told as the place in the disk. @throws DiskError `interrupted` when cancelled. */
export async function diffVolumes(
  context: ThreadContext,
  order: DiffOrder,
  work: JobWork,
): Promise<DiffPart> {
  const from = new Volume(context, order.from);
  const to = new Volume(context, order.to);
  return await new VolumeDiff(from, to, order.limit).run(order.start, work);
}

/** What is known of a run without reading it: whole blocks, but at the end of the disk. */
interface Look {
  readonly length: number;
  readonly isSame: boolean;
  readonly fromZero: boolean;
  readonly toZero: boolean;
}

class VolumeDiff {
  readonly #from: Volume;
  readonly #to: Volume;
  readonly #toSize: number;
  /** Up to here both have bytes, from here on only one: a block that it has alone differs. */
  readonly #common: number;
  readonly #end: number;
  readonly #collector: DiffCollector;
  readonly #fromBytes = Buffer.alloc(CHUNK);
  readonly #toBytes = Buffer.alloc(CHUNK);
  readonly #fromExtent: Extent = { state: 'unallocated', length: 0 };
  readonly #toExtent: Extent = { state: 'unallocated', length: 0 };

  constructor(from: Volume, to: Volume, limit: number) {
    this.#from = from;
    this.#to = to;
    this.#toSize = to.size;
    this.#end = Math.max(from.size, to.size);
    const shorter = Math.min(from.size, to.size);
    this.#common = shorter === this.#end ? shorter : alignDown(shorter, BLOCK_SIZE);
    this.#collector = new DiffCollector(limit);
  }

  async run(start: number, work: JobWork): Promise<DiffPart> {
    const pace = new Pace(work);
    const { extents } = this.#collector;
    let ask = CHUNK;
    for (let at = alignDown(start, BLOCK_SIZE); at < this.#end; ) {
      await pace.rest();
      const isCommon = at < this.#common;
      const look = isCommon ? this.#look(at, Math.min(ask, this.#common - at)) : undefined;
      const isSame = look?.isSame === true;
      const end = isSame
        ? { at: at + look.length, isFull: false }
        : look === undefined
          ? this.#takeBeyond(at)
          : this.#compare(at, look);
      // Afterwards: what was read last of another size is no answer, either.
      this.#checkSize();
      if (end.isFull) return { extents, next: end.at };
      at = end.at;
      ask = isSame ? Math.min(2 * ask, MOST_ASKED) : CHUNK;
      work.onProgress?.(at, this.#end);
    }
    return { extents };
  }

  /** A restore may have put the present state back to another size, a moment ago. */
  #checkSize(): void {
    if (this.#to.row.size === this.#toSize) return;
    throw new DiskError('busy', 'the disk got another size while it was compared', {
      hint: 'compare again',
    });
  }

  /** Where both sides get the run from `at` on, at most `length` bytes of it. */
  #look(at: number, length: number): Look {
    const from = this.#fromExtent;
    const to = this.#toExtent;
    this.#from.deltaExtentAt(at, length, from);
    this.#to.deltaExtentAt(at, from.length, to);
    const isOfBases = from.state === 'unallocated' && to.state === 'unallocated';
    if (isOfBases && this.#from.base === this.#to.base) {
      return { length: to.length, isSame: true, fromZero: false, toZero: false };
    }
    const piece = this.#from.mapAt(at, to.length);
    const other = this.#to.mapAt(at, piece.length);
    // Images answer in pieces of any length. What is less than a block is read.
    const isLast = at + other.length === this.#common;
    const whole = isLast ? other.length : alignDown(other.length, BLOCK_SIZE);
    if (whole === 0) {
      const rest = Math.min(BLOCK_SIZE, this.#common - at);
      return { length: rest, isSame: false, fromZero: false, toZero: false };
    }
    const fromZero = readsAsZero(this.#from, piece, at);
    const toZero = readsAsZero(this.#to, other, at);
    const isSamePiece = isSamePlace(piece, other) && this.#isStill(piece, at);
    return { length: whole, isSame: (fromZero && toZero) || isSamePiece, fromZero, toZero };
  }

  /**
   * Whether the first side still says the same. If a merge had closed the delta between the two
   * looks, the other side could have been given its number for another one.
   */
  #isStill(piece: VolumePiece, at: number): boolean {
    return piece.kind !== 'delta' || isSamePlace(piece, this.#from.mapAt(at, piece.length));
  }

  /** Reads and compares from `at` on as far as nobody knows better, at most a chunk. */
  #compare(at: number, first: Look): { at: number; isFull: boolean } {
    const most = Math.min(CHUNK - (at % CHUNK), this.#common - at);
    let { fromZero, toZero } = first;
    let length = Math.min(most, first.length);
    while (length < most) {
      const look = this.#look(at + length, most - length);
      if (look.isSame) break;
      fromZero &&= look.fromZero;
      toZero &&= look.toZero;
      length += look.length;
    }
    fill(this.#from, fromZero, this.#fromBytes, at, length);
    fill(this.#to, toZero, this.#toBytes, at, length);
    return this.#addDifferent(at, length, (offset, count) =>
      this.#fromBytes.compare(this.#toBytes, offset, offset + count, offset, offset + count),
    );
  }

  /** Takes what only one side has, from `at` on: all of it differs. */
  #takeBeyond(at: number): { at: number; isFull: boolean } {
    const toEnd = Math.min(alignUp(this.#toSize, BLOCK_SIZE), this.#end);
    if (at >= toEnd) return this.#add(at, this.#end - at, true);
    const there = this.#toSize - at;
    this.#to.extentAt(at, Math.min(there, MOST_ASKED), this.#toExtent);
    const { state, length } = this.#toExtent;
    const whole = length === there ? toEnd - at : alignDown(length, BLOCK_SIZE);
    if (state !== 'data' && whole > 0) return this.#add(at, whole, true);
    const count = Math.min(CHUNK - (at % CHUNK), toEnd - at);
    this.#toBytes.fill(0, 0, count);
    fill(this.#to, false, this.#toBytes, at, Math.min(count, there));
    return this.#addDifferent(at, count, () => 1);
  }

  /** Goes through the blocks that were read. @returns how far there was room for them. */
  #addDifferent(at: number, length: number, compare: (offset: number, count: number) => number) {
    if (compare(0, length) === 0) return { at: at + length, isFull: false };
    for (let offset = 0; offset < length; offset += BLOCK_SIZE) {
      const count = Math.min(BLOCK_SIZE, length - offset);
      if (compare(offset, count) === 0) continue;
      const added = this.#add(at + offset, count, isZero(this.#toBytes, offset, count));
      if (added.isFull) return added;
    }
    return { at: at + length, isFull: false };
  }

  #add(start: number, length: number, zero: boolean): { at: number; isFull: boolean } {
    const isFull = !this.#collector.add({ start, length, zero });
    return { at: isFull ? start : start + length, isFull };
  }
}

function fill(volume: Volume, zero: boolean, target: Buffer, at: number, length: number): void {
  if (zero) target.fill(0, 0, length);
  else volume.read(target, 0, at, length);
}

function readsAsZero(volume: Volume, piece: VolumePiece, at: number): boolean {
  if (piece.kind === 'base') return piece.extent.zero;
  // A base need not tell where its bytes lie: nothing is known of them then.
  if (piece.kind === 'nothing') return at >= (volume.base?.virtualSize ?? 0);
  return piece.kind === 'zero';
}

/** Whether two pieces at one offset of the disk are the same stored bytes. */
function isSamePlace(piece: VolumePiece, other: VolumePiece): boolean {
  if (piece.kind === 'delta') {
    return other.kind === 'delta' && piece.delta === other.delta && piece.offset === other.offset;
  }
  if (piece.kind !== 'base' || other.kind !== 'base') return false;
  const { file, offset } = piece.extent;
  const isKnown = file !== undefined && offset !== undefined;
  return isKnown && file === other.extent.file && offset === other.extent.offset;
}
