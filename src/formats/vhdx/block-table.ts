/** The block allocation table of a VHDX, read in slices and judged when they are loaded. */
import { endianness } from 'node:os';
import { invariant } from '../../common/assert.js';
import { divCeil } from '../../common/units.js';
import type { ReadableFile } from '../../storage/host-file.js';
import { type FileRanges, includesSorted, type NamedRange } from '../file-ranges.js';
import { damaged } from '../image-error.js';
import { currentBudget } from '../memory-budget.js';
import { type TableSlice, TableSlices } from '../table-slices.js';
import {
  ALIGNMENT,
  BAT_CACHE_BYTES,
  BAT_ENTRY_SIZE,
  BITMAP_BLOCK_SIZE,
  BITMAP_NOT_PRESENT,
  BITMAP_PRESENT,
  MAX_COMPARED_ENTRIES,
  PAYLOAD_FULLY_PRESENT,
  PAYLOAD_PARTIALLY_PRESENT,
  PAYLOAD_UNMAPPED,
  SECTORS_PER_CHUNK,
  SLICE_SIZE,
  STATE_MASK,
} from './vhdx-layout.js';

/** In place of a state: an entry that cannot be true. No valid entry has it. */
export const STATE_DAMAGED = 4;

export interface BlockTableShape {
  readonly virtualSize: number;
  readonly blockSize: number;
  readonly logicalSectorSize: number;
  readonly isDifferencing: boolean;
}

const ENTRIES_PER_SLICE = SLICE_SIZE / BAT_ENTRY_SIZE;
const MIB_PER_HIGH_WORD = 2 ** 32 / ALIGNMENT;

/**
 * Payload blocks are numbered from 0, chunks (the blocks that one sector bitmap block serves) too.
 * In the table each chunk's bitmap entry follows its payload entries.
 *
 * INVARIANT: an offset that is given with a state of presence lies in the file, in none of its
 * other structures, and (for tables of up to `MAX_COMPARED_ENTRIES`) in no other block.
 */
export class BlockTable {
  readonly blockCount: number;
  readonly #file: ReadableFile;
  readonly #region: NamedRange;
  readonly #own: FileRanges;
  readonly #isDifferencing: boolean;
  readonly #blockSize: number;
  readonly #blocksPerChunk: number;
  readonly #entryCount: number;
  readonly #slices: TableSlices;
  /** Offsets of blocks that overlap others, ascending. */
  #shared: Float64Array = new Float64Array(0);

  /** @throws DiskError `damaged` when the region is too short for the disk. */
  constructor(file: ReadableFile, region: NamedRange, own: FileRanges, shape: BlockTableShape) {
    invariant(endianness() === 'LE', 'BAT entries are read as they lie in memory');
    const { virtualSize, blockSize, logicalSectorSize } = shape;
    this.#file = file;
    this.#region = region;
    this.#own = own;
    this.#isDifferencing = shape.isDifferencing;
    this.#blockSize = blockSize;
    this.#blocksPerChunk = (SECTORS_PER_CHUNK * logicalSectorSize) / blockSize;
    this.blockCount = divCeil(virtualSize, blockSize);
    const chunkCount = divCeil(this.blockCount, this.#blocksPerChunk);
    this.#entryCount = shape.isDifferencing
      ? chunkCount * (this.#blocksPerChunk + 1)
      : this.blockCount + chunkCount - 1;
    if (this.#entryCount * BAT_ENTRY_SIZE > region.length) {
      const room = region.length / BAT_ENTRY_SIZE;
      throw damaged(
        file.path,
        `the block allocation table has room for ${room} entries, ` +
          `the disk needs ${this.#entryCount}`,
      );
    }
    this.#slices = new TableSlices({
      path: file.path,
      sliceSize: SLICE_SIZE,
      sliceCount: divCeil(this.#entryCount, ENTRIES_PER_SLICE),
      maxBytes: BAT_CACHE_BYTES,
      load: (slice, index) => this.#loadSlice(slice, index),
    });
    if (this.#entryCount <= MAX_COMPARED_ENTRIES) this.#shared = this.#findShared();
  }

  /** State of a payload block: one of `PAYLOAD_...`, or `STATE_DAMAGED`. */
  state(block: number): number {
    const entry = this.#entryOf(block);
    return this.#lowWord(entry) & STATE_MASK;
  }

  /** Where a payload block that is present begins in the file. */
  offset(block: number): number {
    return this.#offsetAt(this.#entryOf(block));
  }

  /** State of a chunk's sector bitmap block. */
  bitmapState(chunk: number): number {
    return this.#lowWord(this.#bitmapEntryOf(chunk)) & STATE_MASK;
  }

  bitmapOffset(chunk: number): number {
    return this.#offsetAt(this.#bitmapEntryOf(chunk));
  }

  #entryOf(block: number): number {
    return block + Math.floor(block / this.#blocksPerChunk);
  }

  #bitmapEntryOf(chunk: number): number {
    return chunk * (this.#blocksPerChunk + 1) + this.#blocksPerChunk;
  }

  #lowWord(entry: number): number {
    const { words } = this.#slices.get(Math.floor(entry / ENTRIES_PER_SLICE));
    return words[(entry % ENTRIES_PER_SLICE) * 2]!;
  }

  #offsetAt(entry: number): number {
    const { words } = this.#slices.get(Math.floor(entry / ENTRIES_PER_SLICE));
    const at = (entry % ENTRIES_PER_SLICE) * 2;
    return offsetOf(words[at]!, words[at + 1]!);
  }

  #isBitmapEntry(entry: number): boolean {
    return entry % (this.#blocksPerChunk + 1) === this.#blocksPerChunk;
  }

  #loadSlice(slice: TableSlice, index: number): void {
    this.#readSlice(slice, index);
    const first = index * ENTRIES_PER_SLICE;
    for (let entry = 0; entry < ENTRIES_PER_SLICE; entry += 1) {
      const low = slice.words[entry * 2]!;
      const offset = offsetOf(low, slice.words[entry * 2 + 1]!);
      if (!this.#isSound(first + entry, low & STATE_MASK, offset)) {
        slice.words[entry * 2] = STATE_DAMAGED;
      }
    }
  }

  /** The slice as it is in the file; what lies behind the table's last entry is left out. */
  #readSlice(slice: TableSlice, index: number): void {
    const from = index * SLICE_SIZE;
    const length = Math.min(SLICE_SIZE, this.#entryCount * BAT_ENTRY_SIZE - from);
    this.#file.readExact(slice.bytes, 0, length, this.#region.offset + from);
    slice.bytes.fill(0, length);
  }

  #isSound(entry: number, state: number, offset: number): boolean {
    if (this.#isBitmapEntry(entry)) {
      if (state === BITMAP_NOT_PRESENT) return true;
      const isAllowed = state === BITMAP_PRESENT && this.#isDifferencing;
      return isAllowed && this.#isPlaceSound(offset, BITMAP_BLOCK_SIZE);
    }
    if (state <= PAYLOAD_UNMAPPED) return true;
    const isAllowed =
      state === PAYLOAD_FULLY_PRESENT ||
      (state === PAYLOAD_PARTIALLY_PRESENT && this.#isDifferencing);
    return isAllowed && this.#isPlaceSound(offset, this.#blockSize);
  }

  #isPlaceSound(offset: number, length: number): boolean {
    return this.#isPlace(offset, length) && !includesSorted(this.#shared, offset);
  }

  /**
   * Whether a block may lie there, other blocks left aside; one that the end of the file cuts is
   * used as far as it goes.
   */
  #isPlace(offset: number, length: number): boolean {
    return offset < this.#file.size && !this.#own.overlap(offset, length);
  }

  /** Offsets of present blocks that overlap one another, ascending. */
  #findShared(): Float64Array {
    const places = new Float64Array(this.#entryCount);
    let count = 0;
    const words = new Uint32Array(SLICE_SIZE / 4);
    const slice = { words, bytes: Buffer.from(words.buffer) };
    for (let index = 0; index * ENTRIES_PER_SLICE < this.#entryCount; index += 1) {
      this.#readSlice(slice, index);
      for (let entry = 0; entry < ENTRIES_PER_SLICE; entry += 1) {
        const low = words[entry * 2]!;
        if ((low & STATE_MASK) < PAYLOAD_FULLY_PRESENT) continue;
        const offset = offsetOf(low, words[entry * 2 + 1]!);
        const isBitmap = this.#isBitmapEntry(index * ENTRIES_PER_SLICE + entry);
        // An entry that is wrong by itself takes no other block down with it.
        if (!this.#isPlace(offset, isBitmap ? BITMAP_BLOCK_SIZE : this.#blockSize)) continue;
        // Offsets are whole MiB: the lowest bit is free to tell the kind, and with it the length.
        places[count] = offset + (isBitmap ? 1 : 0);
        count += 1;
      }
    }
    return this.#overlapping(places.subarray(0, count).sort());
  }

  #overlapping(places: Float64Array): Float64Array {
    const shared: number[] = [];
    let reach = 0;
    let owner = 0;
    for (const place of places) {
      const isBitmap = place % 2 === 1;
      const offset = isBitmap ? place - 1 : place;
      const end = offset + (isBitmap ? BITMAP_BLOCK_SIZE : this.#blockSize);
      if (offset < reach) {
        if (shared.at(-1) !== owner) shared.push(owner);
        if (shared.at(-1) !== offset) shared.push(offset);
      }
      if (end <= reach) continue;
      reach = end;
      owner = offset;
    }
    currentBudget().take(shared.length * Float64Array.BYTES_PER_ELEMENT, this.#file.path);
    return Float64Array.from(shared).sort();
  }
}

function offsetOf(low: number, high: number): number {
  return (high * MIB_PER_HIGH_WORD + (low >>> 20)) * ALIGNMENT;
}
