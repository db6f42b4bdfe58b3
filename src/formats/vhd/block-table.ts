/** The block allocation table of a VHD, and the sector bitmaps in its blocks. */
import { endianness } from 'node:os';
import { invariant } from '../../common/assert.js';
import { alignUp, divCeil, SECTOR_SIZE } from '../../common/units.js';
import type { ReadableFile } from '../../storage/host-file.js';
import { bitAt, reverseBits, runLength } from '../bit-runs.js';
import { type FileRanges, includesSorted } from '../file-ranges.js';
import { currentBudget } from '../memory-budget.js';
import { type TableSlice, TableSlices } from '../table-slices.js';
import type { DynamicHeader } from './dynamic-header.js';
import {
  BAT_CACHE_BYTES,
  BAT_ENTRY_SIZE,
  BAT_SLICE_SIZE,
  BAT_UNUSED,
  BITMAP_CACHE_BYTES,
  BITMAP_SLICE_SIZE,
  MAX_COMPARED_ENTRIES,
  MAX_REMEMBERED_PIECES,
  REMEMBERED_SLICE_SIZE,
} from './vhd-layout.js';

/** What `find` answers besides an offset. */
export const UNUSED = -1;
export const DAMAGED = -2;

const ENTRIES_PER_SLICE = BAT_SLICE_SIZE / BAT_ENTRY_SIZE;
const SECTORS_PER_PIECE = BITMAP_SLICE_SIZE * 8;
/**
 * In place of an entry that cannot be true; the last sector that a block could begin at leaves no
 * room for one.
 */
const DAMAGED_ENTRY = 0xfffffffe;

/**
 * A bitmap is read in *pieces* of 512 bytes (2 MiB of data, all of it at the usual block size).
 *
 * INVARIANT: an offset that `find` gives lies in the file, in none of its headers and tables, and
 * (for tables of up to `MAX_COMPARED_ENTRIES`) in no other block.
 */
export class BlockTable {
  readonly #file: ReadableFile;
  readonly #header: DynamicHeader;
  readonly #own: FileRanges;
  /** Bytes of a block's bitmap, padded to whole sectors. */
  readonly #bitmapSize: number;
  readonly #piecesPerBlock: number;
  /** Data bytes of the last block that lie on the disk. */
  readonly #lastBlockSize: number;
  readonly #entries: TableSlices;
  readonly #bitmaps: TableSlices;
  /** A byte for each piece of a bitmap: 1 where all bits are known to be set. */
  readonly #fullPieces: TableSlices;
  #shared: Float64Array = new Float64Array(0);

  constructor(
    file: ReadableFile,
    header: DynamicHeader,
    options: { readonly own: FileRanges; readonly virtualSize: number },
  ) {
    invariant(endianness() === 'LE', 'block tables are swapped from big endian');
    const { blockCount, blockSize } = header;
    this.#file = file;
    this.#header = header;
    this.#own = options.own;
    this.#bitmapSize = alignUp(divCeil(blockSize / SECTOR_SIZE, 8), SECTOR_SIZE);
    this.#piecesPerBlock = this.#bitmapSize / BITMAP_SLICE_SIZE;
    this.#lastBlockSize = options.virtualSize - (blockCount - 1) * blockSize;
    const pieces = blockCount * this.#piecesPerBlock;
    this.#fullPieces = new TableSlices({
      path: file.path,
      sliceSize: REMEMBERED_SLICE_SIZE,
      sliceCount: divCeil(pieces, REMEMBERED_SLICE_SIZE),
      maxBytes: MAX_REMEMBERED_PIECES,
      load: (slice) => slice.bytes.fill(0),
    });
    this.#entries = new TableSlices({
      path: file.path,
      sliceSize: BAT_SLICE_SIZE,
      sliceCount: divCeil(blockCount, ENTRIES_PER_SLICE),
      maxBytes: BAT_CACHE_BYTES,
      load: (slice, index) => this.#loadEntries(slice, index),
    });
    this.#bitmaps = new TableSlices({
      path: file.path,
      sliceSize: BITMAP_SLICE_SIZE,
      sliceCount: pieces,
      maxBytes: BITMAP_CACHE_BYTES,
      load: (slice, index) => this.#loadPiece(slice, index),
    });
    if (blockCount <= MAX_COMPARED_ENTRIES) this.#shared = this.#findShared();
  }

  /** File offset of a block's data, or `UNUSED`, or `DAMAGED`. */
  find(block: number): number {
    const entry = this.#entries.get(Math.floor(block / ENTRIES_PER_SLICE)).words[
      block % ENTRIES_PER_SLICE
    ]!;
    if (entry === BAT_UNUSED) return UNUSED;
    return entry === DAMAGED_ENTRY ? DAMAGED : entry * SECTOR_SIZE + this.#bitmapSize;
  }

  /**
   * Sectors of a block from `sector` on that are alike in being present or not, at most `count`,
   * told up to the end of a piece of the bitmap: their number if they are present, its negative if
   * not.
   */
  run(block: number, sector: number, count: number): number {
    const inPiece = sector % SECTORS_PER_PIECE;
    const piece = block * this.#piecesPerBlock + (sector - inPiece) / SECTORS_PER_PIECE;
    const end = Math.min(inPiece + count, SECTORS_PER_PIECE);
    const remembered = this.#fullPieces.get(Math.floor(piece / REMEMBERED_SLICE_SIZE)).bytes;
    if (remembered[piece % REMEMBERED_SLICE_SIZE] === 1) return end - inPiece;
    const { words } = this.#bitmaps.get(piece);
    const length = runLength(words, inPiece, end);
    return bitAt(words, inPiece) ? length : -length;
  }

  #loadEntries(slice: TableSlice, index: number): void {
    this.#readEntries(slice, index);
    const first = index * ENTRIES_PER_SLICE;
    for (let entry = 0; entry < ENTRIES_PER_SLICE; entry += 1) {
      const value = slice.words[entry]!;
      if (value === BAT_UNUSED) continue;
      const isSound =
        this.#isPlace(first + entry, value) && !includesSorted(this.#shared, value * SECTOR_SIZE);
      if (!isSound) slice.words[entry] = DAMAGED_ENTRY;
    }
  }

  /** Whether a block may lie there, other blocks left aside. */
  #isPlace(block: number, sector: number): boolean {
    const offset = sector * SECTOR_SIZE;
    const length = this.#bitmapSize + this.#dataSizeOf(block);
    return offset + this.#bitmapSize < this.#file.size && !this.#own.overlap(offset, length);
  }

  /** The slice as it is in the file; what lies behind the table's last entry counts as unused. */
  #readEntries(slice: TableSlice, index: number): void {
    const from = index * BAT_SLICE_SIZE;
    const { blockCount, tableOffset } = this.#header;
    const length = Math.min(BAT_SLICE_SIZE, blockCount * BAT_ENTRY_SIZE - from);
    this.#file.readExact(slice.bytes, 0, length, tableOffset + from);
    slice.bytes.fill(0xff, length);
    slice.bytes.swap32();
  }

  #loadPiece(slice: TableSlice, index: number): void {
    const block = Math.floor(index / this.#piecesPerBlock);
    const piece = index % this.#piecesPerBlock;
    const start = this.find(block) - this.#bitmapSize + piece * BITMAP_SLICE_SIZE;
    this.#file.readExact(slice.bytes, 0, BITMAP_SLICE_SIZE, start);
    reverseBits(slice.bytes);
    const sectors = this.#header.blockSize / SECTOR_SIZE - piece * SECTORS_PER_PIECE;
    const used = Math.min(sectors, SECTORS_PER_PIECE);
    const isFull = bitAt(slice.words, 0) && runLength(slice.words, 0, used) === used;
    if (!isFull) return;
    const remembered = this.#fullPieces.get(Math.floor(index / REMEMBERED_SLICE_SIZE)).bytes;
    remembered[index % REMEMBERED_SLICE_SIZE] = 1;
  }

  /** Some writers cut the last block where the disk ends. */
  #dataSizeOf(block: number): number {
    const { blockCount, blockSize } = this.#header;
    return block === blockCount - 1 ? this.#lastBlockSize : blockSize;
  }

  /** Offsets of blocks that overlap one another, ascending. */
  #findShared(): Float64Array {
    const { blockCount } = this.#header;
    const starts = new Float64Array(blockCount);
    const words = new Uint32Array(ENTRIES_PER_SLICE);
    const slice = { words, bytes: Buffer.from(words.buffer) };
    let count = 0;
    let last = BAT_UNUSED;
    for (let index = 0; index * ENTRIES_PER_SLICE < blockCount; index += 1) {
      this.#readEntries(slice, index);
      for (let entry = 0; entry < ENTRIES_PER_SLICE; entry += 1) {
        const value = words[entry]!;
        const block = index * ENTRIES_PER_SLICE + entry;
        // An entry that is wrong by itself takes no other block down with it.
        if (value === BAT_UNUSED || !this.#isPlace(block, value)) continue;
        if (block === blockCount - 1) last = value;
        starts[count] = value * SECTOR_SIZE;
        count += 1;
      }
    }
    return this.#overlapping(starts.subarray(0, count).sort(), last * SECTOR_SIZE);
  }

  /** Each against the one that reaches farthest: the last block may be shorter than the others. */
  #overlapping(starts: Float64Array, lastBlockStart: number): Float64Array {
    const shared: number[] = [];
    let reach = 0;
    let owner = 0;
    for (const start of starts) {
      if (start < reach) {
        if (shared.at(-1) !== owner) shared.push(owner);
        if (shared.at(-1) !== start) shared.push(start);
      }
      const block = start === lastBlockStart ? this.#header.blockCount - 1 : 0;
      const end = start + this.#bitmapSize + this.#dataSizeOf(block);
      if (end <= reach) continue;
      reach = end;
      owner = start;
    }
    currentBudget().take(shared.length * Float64Array.BYTES_PER_ELEMENT, this.#file.path);
    return Float64Array.from(shared).sort();
  }
}
