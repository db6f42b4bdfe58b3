/** The two levels of tables that say where the grains of a sparse extent lie, read as they are needed. */
import { SECTOR_SIZE } from '../../common/units.js';
import type { ReadableFile } from '../../storage/host-file.js';
import { ENTRY_SIZE, EntryTable } from '../entry-table.js';
import { damagedExtent } from './extent.js';
import { GTE_UNALLOCATED } from './sparse-layout.js';

export interface GrainMapOptions {
  /** Byte offset of the grain directory; the caller has checked that it lies inside the file. */
  readonly directoryOffset: number;
  /** Grains of the extent. */
  readonly grainCount: number;
  readonly entriesPerTable: number;
}

export class GrainMap {
  readonly #entriesPerTable: number;
  readonly #directory: EntryTable;
  readonly #tables: EntryTable;

  constructor(file: ReadableFile, options: GrainMapOptions) {
    const { directoryOffset, grainCount, entriesPerTable } = options;
    this.#entriesPerTable = entriesPerTable;
    this.#directory = EntryTable.inFile(file, {
      offset: directoryOffset,
      count: Math.ceil(grainCount / entriesPerTable),
    });
    this.#tables = new EntryTable({
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

  /** The entry of a grain; `GTE_UNALLOCATED` also where its whole table is absent. @throws DiskError `damaged` */
  entry(grain: number): number {
    const table = Math.floor(grain / this.#entriesPerTable);
    return this.#directory.get(table) === 0 ? GTE_UNALLOCATED : this.#tables.get(grain);
  }

  /** The first grain after those of the table that `grain` belongs to, if that table is absent; else `grain + 1`. */
  next(grain: number): number {
    const table = Math.floor(grain / this.#entriesPerTable);
    return this.#directory.get(table) === 0 ? (table + 1) * this.#entriesPerTable : grain + 1;
  }
}

/** Bytes of a grain directory. */
export function directorySize(options: Pick<GrainMapOptions, 'grainCount' | 'entriesPerTable'>) {
  return Math.ceil(options.grainCount / options.entriesPerTable) * ENTRY_SIZE;
}
