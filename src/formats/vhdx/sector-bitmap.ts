/** Which sectors of its partially present blocks a differencing VHDX holds itself. */
import { endianness } from 'node:os';
import { invariant } from '../../common/assert.js';
import { divCeil } from '../../common/units.js';
import type { ReadableFile } from '../../storage/host-file.js';
import { bitAt, runLength } from '../bit-runs.js';
import { type TableSlice, TableSlices } from '../table-slices.js';
import type { BlockTable } from './block-table.js';
import {
  BITMAP_BLOCK_SIZE,
  BITMAP_CACHE_BYTES,
  BITMAP_PRESENT,
  SECTORS_PER_CHUNK,
  SLICE_SIZE,
} from './vhdx-layout.js';

const SECTORS_PER_SLICE = SLICE_SIZE * 8;
const SLICES_PER_CHUNK = BITMAP_BLOCK_SIZE / SLICE_SIZE;

/** Sectors are logical ones, numbered from the start of the disk. */
export class SectorBitmap {
  readonly #file: ReadableFile;
  readonly #table: BlockTable;
  readonly #slices: TableSlices;

  /** @param sectors of the disk; 0 where there are no bitmaps. */
  constructor(file: ReadableFile, table: BlockTable, sectors: number) {
    invariant(endianness() === 'LE', 'bitmaps are read as they lie in memory');
    this.#file = file;
    this.#table = table;
    this.#slices = new TableSlices({
      path: file.path,
      sliceSize: SLICE_SIZE,
      sliceCount: divCeil(sectors, SECTORS_PER_SLICE),
      maxBytes: BITMAP_CACHE_BYTES,
      load: (slice, index) => this.#loadSlice(slice, index),
    });
  }

  /** Whether the bitmap block that describes the sector is where its entry says. */
  isReadable(sector: number): boolean {
    const chunk = Math.floor(sector / SECTORS_PER_CHUNK);
    if (this.#table.bitmapState(chunk) !== BITMAP_PRESENT) return false;
    const slice = Math.floor(sector / SECTORS_PER_SLICE) % SLICES_PER_CHUNK;
    return this.#table.bitmapOffset(chunk) + (slice + 1) * SLICE_SIZE <= this.#file.size;
  }

  /** Whether this image holds the sector; `isReadable` must be true. */
  has(sector: number): boolean {
    const { words } = this.#slices.get(Math.floor(sector / SECTORS_PER_SLICE));
    return bitAt(words, sector % SECTORS_PER_SLICE);
  }

  /**
   * Sectors from `sector` on that are alike in this, at most `count`, told up to the end of a piece
   * of the bitmap; at least 1.
   */
  run(sector: number, count: number): number {
    const { words } = this.#slices.get(Math.floor(sector / SECTORS_PER_SLICE));
    const from = sector % SECTORS_PER_SLICE;
    return runLength(words, from, Math.min(from + count, SECTORS_PER_SLICE));
  }

  #loadSlice(slice: TableSlice, index: number): void {
    const chunk = Math.floor(index / SLICES_PER_CHUNK);
    const from = this.#table.bitmapOffset(chunk) + (index % SLICES_PER_CHUNK) * SLICE_SIZE;
    this.#file.readExact(slice.bytes, 0, SLICE_SIZE, from);
  }
}
