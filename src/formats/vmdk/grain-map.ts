/**
 * The two levels of tables that say where the grains of a sparse extent lie, read as they are
 * needed.
 */
import { divCeil, KiB, SECTOR_SIZE } from '../../common/units.js';
import type { ReadableFile } from '../../storage/host-file.js';
import { ENTRY_SIZE, EntryTable } from '../entry-table.js';
import { firstAbove } from '../file-ranges.js';
import { currentBudget } from '../memory-budget.js';
import { damagedExtent } from './extent.js';
import { GTE_UNALLOCATED } from './sparse-layout.js';

/** No grain can lie there: sectors are 32 bits, and files end below. */
export const ENTRY_LOST = 0xffff_ffff;

export interface GrainMapOptions {
  /** Byte offset of the grain directory; the caller has checked that it lies inside the file. */
  readonly directoryOffset: number;
  /** Grains of the extent. */
  readonly grainCount: number;
  readonly entriesPerTable: number;
  /** What else is the file's own: its header and descriptor. */
  readonly own: readonly FilePlace[];
}

/** Bytes of the file. */
export interface FilePlace {
  readonly offset: number;
  readonly length: number;
}

/** Where the entries of a table are to be had. */
type TableState = 'present' | 'absent' | 'lost';

/** Directories up to this size (8 TiB in grains of 64 KiB) are searched for where tables lie. */
const MAX_SEARCHED_TABLES = 256 * KiB;

export class GrainMap {
  readonly #file: ReadableFile;
  readonly #entriesPerTable: number;
  readonly #directory: EntryTable;
  readonly #tables: EntryTable;
  /** Header, descriptor, directory. */
  readonly #own: readonly FilePlace[];
  /** First sectors of all tables but the last, ascending; none where there are too many. */
  readonly #tableSectors: Uint32Array;
  /** A writer may cut it where the disk ends. */
  readonly #lastTable: readonly FilePlace[];
  /** The table that was asked for last, and its state: most questions stay in it. */
  #table = -1;
  #state: TableState = 'absent';

  constructor(file: ReadableFile, options: GrainMapOptions) {
    const { directoryOffset, grainCount, entriesPerTable } = options;
    this.#file = file;
    this.#entriesPerTable = entriesPerTable;
    this.#directory = EntryTable.inFile(file, {
      offset: directoryOffset,
      count: Math.ceil(grainCount / entriesPerTable),
    });
    const directory = { offset: directoryOffset, length: directorySize(options) };
    this.#own = [...options.own, directory];
    this.#tables = new EntryTable({
      path: file.path,
      count: grainCount,
      pageEntries: entriesPerTable,
      load: (table, bytes) => {
        const place = this.#placeOf(table);
        if (this.#isLost(place)) {
          const what = `VMDK grain table ${table} is said to lie at ${place.offset}`;
          const where = `in the header, or past the end of the file (${file.size} bytes)`;
          throw damagedExtent(file.path, `${what}, ${where}`);
        }
        file.readExact(bytes, 0, bytes.length, place.offset);
      },
    });
    this.#tableSectors = this.#findTables();
    const last = this.#directory.count - 1;
    this.#lastTable = this.#findState(last) === 'present' ? [this.#placeOf(last)] : [];
  }

  /** Whether any of these bytes of the file are its header, descriptor, directory or a table. */
  isOwn(offset: number, length: number): boolean {
    if (touches(this.#own, offset, length) || touches(this.#lastTable, offset, length)) return true;
    const sector = Math.floor(offset / SECTOR_SIZE);
    const tableSectors = divCeil(this.#entriesPerTable * ENTRY_SIZE, SECTOR_SIZE);
    const next = this.#tableSectors[firstAbove(this.#tableSectors, sector - tableSectors)];
    return next !== undefined && next * SECTOR_SIZE < offset + length;
  }

  /**
   * The entry of a grain; `GTE_UNALLOCATED` also where its whole table is absent. @throws DiskError
   * `damaged`
   */
  entry(grain: number): number {
    return this.#stateOf(grain) === 'absent' ? GTE_UNALLOCATED : this.#tables.get(grain);
  }

  /**
   * Like `entry`, but `ENTRY_LOST` where the table cannot lie where it is said to: its grains are
   * data that cannot be read, which a map must be able to tell.
   */
  entryOrLost(grain: number): number {
    return this.#stateOf(grain) === 'lost' ? ENTRY_LOST : this.entry(grain);
  }

  /** The grain after `grain`; after all of its table, where that is absent or lost as a whole. */
  next(grain: number): number {
    if (this.#stateOf(grain) === 'present') return grain + 1;
    return (this.#table + 1) * this.#entriesPerTable;
  }

  #stateOf(grain: number): TableState {
    const table = Math.floor(grain / this.#entriesPerTable);
    if (table !== this.#table) {
      this.#table = -1;
      this.#state = this.#findState(table);
      this.#table = table;
    }
    return this.#state;
  }

  #findState(table: number): TableState {
    if (this.#directory.get(table) === 0) return 'absent';
    return this.#isLost(this.#placeOf(table)) ? 'lost' : 'present';
  }

  #placeOf(table: number): FilePlace {
    const left = this.#tables.count - table * this.#entriesPerTable;
    const length = Math.min(this.#entriesPerTable, left) * ENTRY_SIZE;
    return { offset: this.#directory.get(table) * SECTOR_SIZE, length };
  }

  /** Whether no table can lie there. */
  #isLost({ offset, length }: FilePlace): boolean {
    return offset + length > this.#file.size || touches(this.#own, offset, length);
  }

  #findTables(): Uint32Array {
    const count = this.#directory.count - 1;
    const isAffordable = count <= MAX_SEARCHED_TABLES && currentBudget().grow(count * ENTRY_SIZE);
    if (!isAffordable) return new Uint32Array(0);
    const sectors = new Uint32Array(count);
    let found = 0;
    for (let table = 0; table < count; table += 1) {
      if (this.#findState(table) !== 'present') continue;
      sectors[found] = this.#directory.get(table);
      found += 1;
    }
    return sectors.subarray(0, found).sort();
  }
}

function touches(places: readonly FilePlace[], offset: number, length: number): boolean {
  for (const place of places) {
    if (offset < place.offset + place.length && place.offset < offset + length) return true;
  }
  return false;
}

/** Bytes of a grain directory. */
export function directorySize(options: Pick<GrainMapOptions, 'grainCount' | 'entriesPerTable'>) {
  return Math.ceil(options.grainCount / options.entriesPerTable) * ENTRY_SIZE;
}
