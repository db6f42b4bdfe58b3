/**
 * Space-efficient sparse extents (`SESPARSE`), in which ESXi 6.5 and later keep snapshots: like
 * hosted sparse extents, but with 64-bit entries and tables that are found by index. VMware has not
 * published the format; the source is the announcement and the strict checks of QEMU's block
 * driver, and nothing that those do not know is read.
 */
import { invariant } from '../../common/assert.js';
import { DiskError } from '../../common/errors.js';
import { MAX_DISK_SIZE, SECTOR_SIZE, safeNumber } from '../../common/units.js';
import type { Extent, ExtentLocation, ExtentState } from '../../engine/disk-image.js';
import type { ReadableFile } from '../../storage/host-file.js';
import { ENTRY_SIZE, EntryTable } from '../entry-table.js';
import { damagedExtent, type VmdkExtent } from './extent.js';
import {
  SESPARSE_DIRECTORY_TYPE,
  SESPARSE_FLAGS,
  SESPARSE_GRAIN_SECTORS,
  SESPARSE_HEADER,
  SESPARSE_MAGIC,
  SESPARSE_TABLE_SECTORS,
  SESPARSE_VERSION,
  SESPARSE_VOLATILE_HEADER,
  SESPARSE_VOLATILE_MAGIC,
  type SeSparseHeader,
} from './se-sparse-layout.js';

const GRAIN_SIZE = SESPARSE_GRAIN_SECTORS * SECTOR_SIZE;
/** Each entry is read as two words of 32 bits, the low one first. */
const WORDS_PER_ENTRY = 2;
const TABLE_SIZE = SESPARSE_TABLE_SECTORS * SECTOR_SIZE;
const ENTRIES_PER_TABLE = TABLE_SIZE / 8;
/**
 * Tables are read in parts, the directory too: an image needs one page of each at hand, and a
 * thousand snapshots may stand on each other.
 */
const PAGE_SIZE = 4096;
const PAGE_WORDS = PAGE_SIZE / ENTRY_SIZE;
const PAGES_PER_TABLE = TABLE_SIZE / PAGE_SIZE;
/** As in `SparseExtent`. */
const MAX_RUN_STEPS = 256;

/** Values of a grain entry's top four bits. */
const TYPE_UNALLOCATED = 0;
const TYPE_UNMAPPED = 1;
const TYPE_ZERO = 2;
const TYPE_ALLOCATED = 3;

/** Where the entries of a table are to be had. */
type TableState = 'present' | 'absent' | 'lost';

interface SeSparseGeometry {
  readonly length: number;
  readonly directoryOffset: number;
  readonly tablesOffset: number;
  readonly grainsOffset: number;
}

export class SeSparseExtent implements VmdkExtent {
  readonly length: number;
  readonly grainSize = GRAIN_SIZE;
  readonly complete = false;
  readonly notes = [];
  readonly #file: ReadableFile;
  readonly #geometry: SeSparseGeometry;
  readonly #directory: EntryTable;
  readonly #tables: EntryTable;
  /** The table that was asked for last, and its state: most questions stay in it. */
  #table = -1;
  #tableState: TableState = 'absent';

  constructor(file: ReadableFile, geometry: SeSparseGeometry, length: number) {
    const grainCount = Math.ceil(geometry.length / GRAIN_SIZE);
    this.length = length;
    this.#file = file;
    this.#geometry = geometry;
    this.#directory = EntryTable.inFile(file, {
      offset: geometry.directoryOffset,
      count: Math.ceil(grainCount / ENTRIES_PER_TABLE) * WORDS_PER_ENTRY,
      pageEntries: PAGE_WORDS,
    });
    this.#tables = new EntryTable({
      path: file.path,
      count: grainCount * WORDS_PER_ENTRY,
      pageEntries: PAGE_WORDS,
      load: (page, bytes) => {
        const table = Math.floor(page / PAGES_PER_TABLE);
        const position = this.#tablePosition(table);
        if (this.#findTableState(table) === 'lost') {
          const what = `seSparse grain table ${table} is said to lie at ${position}`;
          throw damagedExtent(file.path, `${what}, which is no table inside the file`);
        }
        file.readExact(bytes, 0, bytes.length, position + (page % PAGES_PER_TABLE) * PAGE_SIZE);
      },
    });
  }

  extentAt(offset: number, length: number, out: Extent): void {
    const end = offset + length;
    let grain = Math.floor(offset / GRAIN_SIZE);
    const state = this.#stateToTell(grain);
    grain = this.#next(grain);
    for (let step = 0; step < MAX_RUN_STEPS && grain * GRAIN_SIZE < end; step += 1) {
      if (this.#stateToTell(grain) !== state) break;
      grain = this.#next(grain);
    }
    out.state = state;
    out.length = Math.min(grain * GRAIN_SIZE, end) - offset;
  }

  readAt(target: Buffer, targetOffset: number, offset: number, length: number): void {
    let done = 0;
    while (done < length) {
      const at = offset + done;
      const grain = Math.floor(at / GRAIN_SIZE);
      const inGrain = at - grain * GRAIN_SIZE;
      done += this.#readRun(target, targetOffset + done, grain, inGrain, length - done);
    }
  }

  locate(offset: number): ExtentLocation | undefined {
    const grain = Math.floor(offset / GRAIN_SIZE);
    const isLost = this.#tableStateOf(grain) === 'lost';
    if (isLost || this.#stateOf(grain) !== 'data') return undefined;
    const inGrain = offset - grain * GRAIN_SIZE;
    const start = this.#positionOf(grain);
    const length = Math.min(GRAIN_SIZE, this.#file.size - start) - inGrain;
    return length <= 0 ? undefined : { file: this.#file.path, offset: start + inGrain, length };
  }

  /**
   * As `SparseExtent`: from the middle of a grain on, as far as grains follow each other in the
   * file.
   */
  #readRun(target: Buffer, at: number, grain: number, inGrain: number, limit: number): number {
    const state = this.#stateOf(grain);
    let count = Math.min(GRAIN_SIZE - inGrain, limit);
    if (state === 'zero') {
      target.fill(0, at, at + count);
      return count;
    }
    if (state === 'unknown') {
      throw damagedExtent(this.#file.path, `seSparse grain ${grain} has an entry of unknown type`);
    }
    invariant(state === 'data', `read of unallocated seSparse grain ${grain}`);
    const position = this.#positionOf(grain);
    for (let next = 1; count < limit && this.#stateOf(grain + next) === 'data'; next += 1) {
      if (this.#positionOf(grain + next) !== position + next * GRAIN_SIZE) break;
      count += Math.min(GRAIN_SIZE, limit - count);
    }
    if (position + inGrain + count > this.#file.size) {
      const what = `seSparse grain ${grain} is said to lie at ${position}`;
      throw damagedExtent(this.#file.path, `${what}, past the end of the file`);
    }
    this.#file.readExact(target, at, count, position + inGrain);
    return count;
  }

  #tableStateOf(grain: number): TableState {
    const table = Math.floor(grain / ENTRIES_PER_TABLE);
    if (table !== this.#table) {
      this.#table = -1;
      this.#tableState = this.#findTableState(table);
      this.#table = table;
    }
    return this.#tableState;
  }

  #findTableState(table: number): TableState {
    const word = table * WORDS_PER_ENTRY;
    const type = this.#directory.get(word + 1);
    if (type === 0 && this.#directory.get(word) === 0) return 'absent';
    const end = this.#tablePosition(table) + TABLE_SIZE;
    return type !== SESPARSE_DIRECTORY_TYPE || end > this.#file.size ? 'lost' : 'present';
  }

  #tablePosition(table: number): number {
    const { tablesOffset } = this.#geometry;
    return tablesOffset + this.#directory.get(table * WORDS_PER_ENTRY) * TABLE_SIZE;
  }

  /** As `GrainMap.next`. */
  #next(grain: number): number {
    if (this.#tableStateOf(grain) === 'present') return grain + 1;
    return (this.#table + 1) * ENTRIES_PER_TABLE;
  }

  /**
   * What `extentAt` says: a grain whose table or entry is damaged is data, which cannot be read.
   */
  #stateToTell(grain: number): ExtentState {
    if (this.#tableStateOf(grain) === 'lost') return 'data';
    const state = this.#stateOf(grain);
    return state === 'unknown' ? 'data' : state;
  }

  #stateOf(grain: number): ExtentState | 'unknown' {
    if (this.#tableStateOf(grain) === 'absent') return 'unallocated';
    const word = grain * WORDS_PER_ENTRY;
    const high = this.#tables.get(word + 1);
    const type = high >>> 28;
    if (type === TYPE_ALLOCATED) return 'data';
    if (type === TYPE_UNMAPPED || type === TYPE_ZERO) return 'zero';
    const isEmpty = type === TYPE_UNALLOCATED && high === 0 && this.#tables.get(word) === 0;
    return isEmpty ? 'unallocated' : 'unknown';
  }

  /**
   * Of an allocated grain: bits 59-48 are the low twelve of its number, bits 47-0 the high ones.
   */
  #positionOf(grain: number): number {
    const word = grain * WORDS_PER_ENTRY;
    const low = this.#tables.get(word);
    const high = this.#tables.get(word + 1);
    const number = ((high >>> 16) & 0xfff) + ((high & 0xffff) * 2 ** 32 + low) * 2 ** 12;
    return this.#geometry.grainsOffset + number * GRAIN_SIZE;
  }
}

/**
 * Reads both headers and checks all that is known of them. @throws DiskError `damaged`,
 * `not-supported`
 */
export function seSparseGeometry(file: ReadableFile): SeSparseGeometry {
  const { path } = file;
  const bytes = readSector(file, 0, 'header');
  const header = SESPARSE_HEADER.decode(bytes);
  if (header.magic !== SESPARSE_MAGIC) throw damaged(path, 'no seSparse magic');
  checkHeader(path, header);
  const geometry = {
    length: inBytes(header.capacity, `${path}: seSparse capacity`),
    directoryOffset: inBytes(header.directoryOffset, `${path}: seSparse grain directory`),
    tablesOffset: inBytes(header.tablesOffset, `${path}: seSparse grain tables`),
    grainsOffset: inBytes(header.grainsOffset, `${path}: seSparse grains`),
  };
  if (geometry.length === 0 || geometry.length > MAX_DISK_SIZE) {
    throw damaged(path, `seSparse capacity ${geometry.length} is not from 1 sector to 64 TiB`);
  }
  const tables = Math.ceil(geometry.length / GRAIN_SIZE / ENTRIES_PER_TABLE);
  const end = geometry.directoryOffset + tables * 8;
  if (geometry.directoryOffset === 0 || end > file.size) {
    throw damaged(path, `seSparse grain directory is not inside the file (it ends at ${end})`);
  }
  checkVolatileHeader(file, header);
  return geometry;
}

function checkHeader(path: string, header: SeSparseHeader): void {
  const expected: [string, bigint, bigint][] = [
    ['version', header.version, SESPARSE_VERSION],
    ['grain size', header.grainSize, BigInt(SESPARSE_GRAIN_SECTORS)],
    ['grain table size', header.grainTableSize, BigInt(SESPARSE_TABLE_SECTORS)],
    ['flags', header.flags, SESPARSE_FLAGS],
    ...header.reserved.map((value): [string, bigint, bigint] => ['reserved field', value, 0n]),
  ];
  const odd = expected.find(([, found, known]) => found !== known);
  if (odd === undefined) return;
  const [name, found, known] = odd;
  const what = `seSparse ${name} 0x${found.toString(16)} is not supported`;
  throw new DiskError('not-supported', `${path}: ${what}, only 0x${known.toString(16)} is`, {
    hint: 'clone the disk on the ESXi host to another type: vmkfstools -i DISK NEW -d thin',
  });
}

function checkVolatileHeader(file: ReadableFile, header: SeSparseHeader): void {
  const { path } = file;
  const offset = inBytes(header.volatileHeaderOffset, `${path}: seSparse volatile header`);
  const state = SESPARSE_VOLATILE_HEADER.decode(readSector(file, offset, 'volatile header'));
  if (state.magic !== SESPARSE_VOLATILE_MAGIC) {
    throw damaged(path, 'no magic in the seSparse volatile header');
  }
  if (state.replayJournal !== 0n) {
    throw new DiskError('not-supported', `${path}: its seSparse journal was not replayed`, {
      hint: 'open and close the disk on the ESXi host once, or clone it there with vmkfstools -i',
    });
  }
}

function damaged(path: string, what: string): DiskError {
  return new DiskError('damaged', `${path}: ${what}`);
}

function inBytes(sectors: bigint, what: string): number {
  return safeNumber(sectors * BigInt(SECTOR_SIZE), what);
}

function readSector(file: ReadableFile, offset: number, what: string): Buffer {
  if (offset + SECTOR_SIZE > file.size) {
    throw damaged(file.path, `the file ends before its seSparse ${what} (at ${offset})`);
  }
  const bytes = Buffer.alloc(SECTOR_SIZE);
  file.readExact(bytes, 0, SECTOR_SIZE, offset);
  return bytes;
}
