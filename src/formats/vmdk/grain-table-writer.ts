/** The tables of a sparse extent that is being written: grains come in ascending order. */

import { DiskError } from '../../common/errors.js';
import { KiB, SECTOR_SIZE } from '../../common/units.js';
import { ENTRY_SIZE } from '../entry-table.js';

/** Bytes of a grain as VMware writes them. */
export const WRITTEN_GRAIN_SIZE = 64 * KiB;
export const GRAIN_SECTORS = WRITTEN_GRAIN_SIZE / SECTOR_SIZE;
export const WRITTEN_ENTRIES_PER_TABLE = 512;
const TABLE_SIZE = WRITTEN_ENTRIES_PER_TABLE * ENTRY_SIZE;
export const TABLE_SECTORS = TABLE_SIZE / SECTOR_SIZE;
/** Bytes of the disk that one table is about. */
const TABLE_COVER = WRITTEN_ENTRIES_PER_TABLE * WRITTEN_GRAIN_SIZE;
/** Entries are sectors in 32 bits; the last number is kept free. */
const FIRST_SECTOR_PAST_ENTRIES = 0xffff_ffff;

/** Takes a table that is complete; the bytes are used again afterwards. */
export type TableSink = (table: number, bytes: Buffer) => void;

/** INVARIANT: entries of one table at most are in memory; `flush` hands it over. */
export class GrainTableWriter {
  readonly #sink: TableSink;
  readonly #bytes = Buffer.alloc(TABLE_SIZE);
  #table = -1;

  constructor(sink: TableSink) {
    this.#sink = sink;
  }

  /** Hands over the table before that of `grain`, if another one was being filled. */
  enter(grain: number): void {
    const table = Math.floor(grain / WRITTEN_ENTRIES_PER_TABLE);
    if (table === this.#table) return;
    this.flush();
    this.#table = table;
  }

  set(grain: number, entry: number): void {
    this.enter(grain);
    this.#bytes.writeUInt32LE(entry, (grain % WRITTEN_ENTRIES_PER_TABLE) * ENTRY_SIZE);
  }

  flush(): void {
    if (this.#table < 0) return;
    this.#sink(this.#table, this.#bytes);
    this.#bytes.fill(0);
    this.#table = -1;
  }
}

/** Tables of an extent of `length` bytes. */
export function tableCount(length: number): number {
  return Math.ceil(length / TABLE_COVER);
}

/** Sectors of the directory of so many tables. */
export function directorySectors(tables: number): number {
  return Math.ceil((tables * ENTRY_SIZE) / SECTOR_SIZE);
}

/** @throws DiskError `not-supported` when what comes at `sector` cannot be referred to. */
export function checkSector(path: string, sector: number): void {
  if (sector < FIRST_SECTOR_PAST_ENTRIES) return;
  throw new DiskError(
    'not-supported',
    `${path}: a sparse VMDK extent refers to 2 TiB of its file at most, and these data are more`,
    { hint: 'choose --subformat monolithicFlat, or twoGbMaxExtentSparse for disks up to 8 TiB' },
  );
}
