/**
 * What a log wants to be written, in few bytes each: a hostile log holds a quarter of a million.
 */
import { invariant } from '../../common/assert.js';
import { currentBudget, OBJECT_BYTES } from '../memory-budget.js';

/** Bytes of a logged sector that its descriptor holds: the first 8, and the last 4. */
const LEADING = 8;
const TRAILING = 4;
const KEPT = LEADING + TRAILING;
/** Instead of a sector's offset: zeroes. */
const ZEROES = -1;
/** Numbers of an update, the bytes that are kept, and what `ReplayedFile` makes of it. */
const UPDATE_BYTES = 128;

/** Offsets and lengths are bytes of the file. */
export class LogUpdates {
  readonly offsets: Float64Array;
  readonly lengths: Float64Array;
  readonly #sectorOffsets: Float64Array;
  readonly #kept: Buffer;
  #count = 0;

  /**
   * @param capacity updates that there will be.
   * @param path the image, for messages. @throws DiskError `not-supported`: too much memory.
   */
  constructor(capacity: number, path: string) {
    currentBudget().take(capacity * UPDATE_BYTES + OBJECT_BYTES, path);
    this.offsets = new Float64Array(capacity);
    this.lengths = new Float64Array(capacity);
    this.#sectorOffsets = new Float64Array(capacity);
    this.#kept = Buffer.alloc(capacity * KEPT);
  }

  get count(): number {
    return this.#count;
  }

  addZeroes(offset: number, length: number): void {
    this.#add(offset, length, ZEROES);
  }

  /** @param data.sectorOffset of the log's data sector, whose middle is the rest of it. */
  addSector(
    offset: number,
    length: number,
    data: { readonly leading: Buffer; readonly trailing: Buffer; readonly sectorOffset: number },
  ): void {
    const at = this.#count * KEPT;
    data.leading.copy(this.#kept, at, 0, LEADING);
    data.trailing.copy(this.#kept, at + LEADING, 0, TRAILING);
    this.#add(offset, length, data.sectorOffset);
  }

  /** Where the log's data sector of an update lies; undefined where that is zeroes. */
  sectorOffset(update: number): number | undefined {
    const offset = this.#sectorOffsets[update]!;
    return offset === ZEROES ? undefined : offset;
  }

  /** Puts what the descriptor holds of a sector in its place. */
  complete(update: number, sector: Buffer): void {
    const at = update * KEPT;
    this.#kept.copy(sector, 0, at, at + LEADING);
    this.#kept.copy(sector, sector.length - TRAILING, at + LEADING, at + KEPT);
  }

  #add(offset: number, length: number, sectorOffset: number): void {
    const index = this.#count;
    invariant(index < this.offsets.length, `update ${index} of ${this.offsets.length}`);
    this.offsets[index] = offset;
    this.lengths[index] = length;
    this.#sectorOffsets[index] = sectorOffset;
    this.#count = index + 1;
  }
}
