/** Where each guest cluster of a qcow2 image lies: the L1 table whole, L2 tables in slices. */
import { endianness } from 'node:os';
import { invariant } from '../../common/assert.js';
import { SECTOR_SIZE } from '../../common/units.js';
import type { ReadableFile } from '../../storage/host-file.js';
import { isRepeated, type Places } from '../file-ranges.js';
import { currentBudget } from '../memory-budget.js';
import { type TableSlice, TableSlices } from '../table-slices.js';
import { NO_CLUSTER, newClusterNumbers, type OwnClusters, readOffsets } from './own-clusters.js';
import type { Qcow2Header, TablePlace } from './qcow2-header.js';
import {
  COMPRESSED_HIGH,
  COPIED_HIGH,
  ENTRY_SIZE,
  EXTENDED_ENTRY_SIZE,
  L2_CACHE_BYTES,
  L2_SLICE_SIZE,
  OFFSET_MASK_HIGH,
  OFFSET_MASK_LOW,
  SUBCLUSTERS,
  ZERO_LOW,
} from './qcow2-layout.js';

/** What `ClusterMap.find` answers besides an offset. */
export const UNALLOCATED = -1;
export const ZERO = -2;
export const DAMAGED = -3;
export const COMPRESSED = -4;

/**
 * Upper halves of entries as slices keep them after judging: `COPIED_HIGH` set = plain data at the
 * offset in the rest; `COMPRESSED_HIGH` set = as in the file; this value = damaged (no file is so
 * long); 0 = the lower half is 1 for zero, 0 for unallocated.
 */
const DAMAGED_HIGH = 0x7fffffff;

/** Where the compressed form of a cluster lies. */
export interface CompressedPlace {
  offset: number;
  /** Bytes up to the end of the last sector. */
  length: number;
}

/**
 * A *unit* is the smallest piece that has a state of its own: a cluster, or with extended L2
 * entries a subcluster.
 *
 * INVARIANT: a plain offset that `find` gives lies in the file that holds the data, and in none of
 * the image's tables.
 */
export class ClusterMap {
  /** Bytes of disk. */
  readonly unitSize: number;
  /** Bytes of disk under one L1 entry. */
  readonly tableSpan: number;
  readonly #file: ReadableFile;
  readonly #dataFile: ReadableFile;
  readonly #own: OwnClusters;
  readonly #header: Qcow2Header;
  /** Numbers of the clusters that hold the L2 tables, or 0, or `#damagedTable`. */
  readonly #l1: Places;
  /** In the L1 array: an L2 table that cannot be where its entry says. */
  readonly #damagedTable: number;
  readonly #slices: TableSlices;
  readonly #wordsPerEntry: number;
  readonly #entriesPerSlice: number;
  readonly #entriesPerTable: number;
  readonly #slicesPerTable: number;
  readonly #sliceSize: number;
  /** Lowest bit of the sector count of a compressed entry, in the upper half. */
  readonly #sectorShift: number;

  /**
   * @param files.data the external data file, or the image itself.
   * @param l1 the place of the L1 table to use, checked.
   */
  constructor(
    files: { readonly image: ReadableFile; readonly data: ReadableFile },
    header: Qcow2Header,
    l1: TablePlace,
    own: OwnClusters,
  ) {
    invariant(endianness() === 'LE', 'L2 entries are swapped from big endian');
    const entrySize = header.extendedL2 ? EXTENDED_ENTRY_SIZE : ENTRY_SIZE;
    this.#file = files.image;
    this.#dataFile = files.data;
    this.#own = own;
    this.#header = header;
    this.#sliceSize = Math.min(header.clusterSize, L2_SLICE_SIZE);
    this.#wordsPerEntry = entrySize / 4;
    this.#entriesPerSlice = this.#sliceSize / entrySize;
    this.#entriesPerTable = header.clusterSize / entrySize;
    this.#slicesPerTable = header.clusterSize / this.#sliceSize;
    this.#sectorShift = 38 - header.clusterBits;
    this.unitSize = header.extendedL2 ? header.clusterSize / SUBCLUSTERS : header.clusterSize;
    this.tableSpan = this.#entriesPerTable * header.clusterSize;
    this.#l1 = newClusterNumbers(this.#file, { count: l1.count, clusterSize: header.clusterSize });
    currentBudget().take(this.#l1.byteLength, this.#file.path);
    this.#damagedTable = this.#l1 instanceof Uint32Array ? NO_CLUSTER : -1;
    this.#readL1(l1);
    this.#slices = new TableSlices({
      path: this.#file.path,
      sliceSize: this.#sliceSize,
      sliceCount: l1.count * this.#slicesPerTable,
      maxBytes: L2_CACHE_BYTES,
      load: (slice, index) => this.#loadSlice(slice, index),
    });
  }

  /** Host offset of the unit, or one of the negative states. */
  find(unit: number): number {
    const extended = this.#wordsPerEntry === 4;
    const cluster = extended ? Math.floor(unit / SUBCLUSTERS) : unit;
    const table = this.#l1[Math.floor(cluster / this.#entriesPerTable)]!;
    if (table === 0) return UNALLOCATED;
    if (table === this.#damagedTable) return DAMAGED;
    const words = this.#sliceOf(cluster);
    const at = this.#indexIn(cluster);
    const high = words[at]!;
    if (high < COPIED_HIGH && high >= COMPRESSED_HIGH) {
      return high === DAMAGED_HIGH ? DAMAGED : COMPRESSED;
    }
    if (extended) return this.#findSubcluster(words, at, unit - cluster * SUBCLUSTERS);
    if (high >= COPIED_HIGH) return (high - COPIED_HIGH) * 2 ** 32 + words[at + 1]!;
    return words[at + 1] === ZERO_LOW ? ZERO : UNALLOCATED;
  }

  /** Whether everything under the L1 entry of this byte of the disk is unallocated. */
  tableIsAbsent(offset: number): boolean {
    return this.#l1[Math.floor(offset / this.tableSpan)] === 0;
  }

  /** Where the compressed cluster lies that `unit` belongs to; `find(unit)` was `COMPRESSED`. */
  compressedPlace(unit: number, out: CompressedPlace): void {
    const cluster = this.#wordsPerEntry === 4 ? Math.floor(unit / SUBCLUSTERS) : unit;
    const words = this.#sliceOf(cluster);
    const at = this.#indexIn(cluster);
    this.#decodeCompressed(words[at]!, words[at + 1]!, out);
  }

  #sliceOf(cluster: number): Uint32Array {
    return this.#slices.get(Math.floor(cluster / this.#entriesPerSlice)).words;
  }

  #indexIn(cluster: number): number {
    return (cluster % this.#entriesPerSlice) * this.#wordsPerEntry;
  }

  #findSubcluster(words: Uint32Array, at: number, subcluster: number): number {
    const zeroBits = words[at + 2]!;
    const dataBits = words[at + 3]!;
    if (((zeroBits >>> subcluster) & 1) === 1) return ZERO;
    if (((dataBits >>> subcluster) & 1) === 0) return UNALLOCATED;
    const cluster = (words[at]! - COPIED_HIGH) * 2 ** 32 + words[at + 1]!;
    return cluster + subcluster * this.unitSize;
  }

  #decodeCompressed(high: number, low: number, out: CompressedPlace): void {
    const shift = this.#sectorShift;
    const sectors = ((high & (COMPRESSED_HIGH - 1)) >>> shift) + 1;
    out.offset = (high & (2 ** shift - 1)) * 2 ** 32 + low;
    out.length = sectors * SECTOR_SIZE - (low % SECTOR_SIZE);
  }

  /** Fills the L1 array; entries that cannot be true are marked. */
  #readL1(l1: TablePlace): void {
    const { clusterSize } = this.#header;
    const numbers = this.#l1;
    let count = 0;
    readOffsets(this.#file, l1, (index, offset) => {
      const isPlace = offset % clusterSize === 0 && offset < this.#file.size;
      numbers[index] = isPlace ? offset / clusterSize : this.#damagedTable;
      if (isPlace) count += 1;
    });
    const tables = this.#tablesIn(numbers, count);
    for (const [index, number] of numbers.entries()) {
      if (number === 0 || number === this.#damagedTable) continue;
      if (this.#own.includes(number * clusterSize) || isRepeated(tables, number)) {
        numbers[index] = this.#damagedTable;
      }
    }
    this.#own.addL2Tables(tables);
  }

  /** The `count` places among the numbers, ascending. `filter` takes several times the memory. */
  #tablesIn(numbers: Places, count: number): Places {
    const { clusterSize } = this.#header;
    const tables = newClusterNumbers(this.#file, { count, clusterSize });
    currentBudget().take(tables.byteLength, this.#file.path);
    let at = 0;
    for (const number of numbers) {
      if (number !== 0 && number !== this.#damagedTable) tables[at++] = number;
    }
    return tables.sort();
  }

  #loadSlice(slice: TableSlice, index: number): void {
    const table = this.#l1[Math.floor(index / this.#slicesPerTable)]!;
    const inTable = (index % this.#slicesPerTable) * this.#sliceSize;
    const start = table * this.#header.clusterSize + inTable;
    const { bytes, words } = slice;
    const present = Math.max(0, Math.min(this.#sliceSize, this.#file.size - start));
    this.#file.readExact(bytes, 0, present, start);
    bytes.swap32();
    const wholeEntries = Math.floor(present / 4 / this.#wordsPerEntry);
    for (let entry = 0; entry < this.#entriesPerSlice; entry += 1) {
      const at = entry * this.#wordsPerEntry;
      if (entry >= wholeEntries) words[at] = DAMAGED_HIGH;
      else if (words[at] !== 0 || words[at + 1] !== 0 || this.#wordsPerEntry !== 2) {
        this.#judge(words, at, index * this.#entriesPerSlice + entry);
      }
    }
  }

  /** Turns an entry as it is in the file into the form that `find` takes. */
  #judge(words: Uint32Array, at: number, cluster: number): void {
    const high = words[at]!;
    const low = words[at + 1]!;
    if ((high & COMPRESSED_HIGH) !== 0) {
      words[at] = this.#isCompressedSound(high, low) ? (high & ~COPIED_HIGH) >>> 0 : DAMAGED_HIGH;
      return;
    }
    const offsetHigh = high & OFFSET_MASK_HIGH;
    const offsetLow = (low & OFFSET_MASK_LOW) >>> 0;
    const offset = offsetHigh * 2 ** 32 + offsetLow;
    const copied = high >= COPIED_HIGH;
    const zero = this.#wordsPerEntry === 2 && (low & ZERO_LOW) === 1;
    // Clusters are a power of two: a remainder of integers, not of an offset beyond 32 bits.
    if (
      (offsetLow & (this.#header.clusterSize - 1)) !== 0 ||
      (zero && this.#header.version === 2)
    ) {
      words[at] = DAMAGED_HIGH;
    } else if (zero) {
      words[at] = 0;
      words[at + 1] = ZERO_LOW;
    } else if (offset === 0 && !copied) {
      const claimsData = this.#wordsPerEntry === 4 && words[at + 3] !== 0;
      words[at] = claimsData ? DAMAGED_HIGH : 0;
      words[at + 1] = 0;
    } else {
      const sound = this.#isDataSound(offset, cluster) && this.#isBitmapSound(words, at);
      words[at] = sound ? COPIED_HIGH + offsetHigh : DAMAGED_HIGH;
      words[at + 1] = offsetLow;
    }
  }

  #isDataSound(offset: number, cluster: number): boolean {
    if (offset >= this.#dataFile.size) return false;
    // In an external data file every cluster lies where the guest sees it.
    if (this.#header.externalData) return offset === cluster * this.#header.clusterSize;
    return !this.#own.includes(offset);
  }

  #isBitmapSound(words: Uint32Array, at: number): boolean {
    return this.#wordsPerEntry === 2 || (words[at + 2]! & words[at + 3]!) === 0;
  }

  #isCompressedSound(high: number, low: number): boolean {
    if (this.#header.externalData) return false;
    const place = { offset: 0, length: 0 };
    this.#decodeCompressed(high, low, place);
    return place.offset < this.#file.size && !this.#own.includes(place.offset);
  }
}
