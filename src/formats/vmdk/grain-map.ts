/**
 * The two levels of tables that say where the grains of a sparse extent lie, read as they are
 * needed.
 */
import { SECTOR_SIZE } from '../../common/units.js';
import type { ReadableFile } from '../../storage/host-file.js';
import { ENTRY_SIZE, EntryTable } from '../entry-table.js';
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
}

/** Where the entries of a table are to be had. */
type TableState = 'present' | 'absent' | 'lost';

export class GrainMap {
  readonly #file: ReadableFile;
  readonly #entriesPerTable: number;
  readonly #directory: EntryTable;
  readonly #tables: EntryTable;
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
    this.#tables = new EntryTable({
      path: file.path,
      count: grainCount,
      pageEntries: entriesPerTable,
      load: (table, bytes) => {
        const position = this.#directory.get(table) * SECTOR_SIZE;
        if (position + bytes.length > file.size) {
          const what = `VMDK grain table ${table} is said to lie at ${position}`;
          throw damagedExtent(file.path, `${what}, past the end of the file (${file.size} bytes)`);
        }
        file.readExact(bytes, 0, bytes.length, position);
      },
    });
  }

  /**
   * The entry of a grain; `GTE_UNALLOCATED` also where its whole table is absent. @throws DiskError
   * `damaged`
   */
  entry(grain: number): number {
    return this.#stateOf(grain) === 'absent' ? GTE_UNALLOCATED : this.#tables.get(grain);
  }

  /**
   * Like `entry`, but `ENTRY_LOST` where the table lies past the end of the file: its grains are
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
    const sector = this.#directory.get(table);
    if (sector === 0) return 'absent';
    const left = this.#tables.count - table * this.#entriesPerTable;
    const size = Math.min(this.#entriesPerTable, left) * ENTRY_SIZE;
    return sector * SECTOR_SIZE + size > this.#file.size ? 'lost' : 'present';
  }
}

/** Bytes of a grain directory. */
export function directorySize(options: Pick<GrainMapOptions, 'grainCount' | 'entriesPerTable'>) {
  return Math.ceil(options.grainCount / options.entriesPerTable) * ENTRY_SIZE;
}
