/** A table of 32-bit little-endian entries in an image file, read page by page and kept in bounded memory. */
import { endianness } from 'node:os';
import { invariant } from '../common/assert.js';
import { KiB, MiB } from '../common/units.js';
import type { ReadableFile } from '../storage/host-file.js';

type Entries = Uint32Array<ArrayBuffer>;

export const ENTRY_SIZE = 4;
/** Most memory of one table, so that a chain of many images stays affordable. */
const MAX_TABLE_MEMORY = 4 * MiB;
const FILE_PAGE_ENTRIES = (16 * KiB) / ENTRY_SIZE;

export interface EntryTableOptions {
  /** Entries in all. */
  readonly count: number;
  /** Entries of one page. */
  readonly pageEntries: number;
  /** Fills `bytes`, the page's first bytes in the file; shorter for the last page. @throws DiskError */
  readonly load: (page: number, bytes: Buffer) => void;
}

/**
 * `get` neither allocates nor reads the file while it stays within pages that were seen before. A 64 TiB VDI has a map of
 * 256 MiB: none of it is read before it is asked for.
 *
 * INVARIANT: memory is at most `MAX_TABLE_MEMORY`, and at most the table's size rounded up to a page.
 */
export class EntryTable {
  readonly count: number;
  readonly #pageEntries: number;
  readonly #maxPages: number;
  readonly #load: (page: number, bytes: Buffer) => void;
  /** Page number -> its entries, oldest first. */
  readonly #pages = new Map<number, Entries>();
  #currentPage = -1;
  #current: Entries = new Uint32Array(0);

  constructor(options: EntryTableOptions) {
    invariant(endianness() === 'LE', 'entry tables are read as they lie in memory');
    this.count = options.count;
    this.#pageEntries = options.pageEntries;
    this.#maxPages = Math.max(1, Math.floor(MAX_TABLE_MEMORY / (options.pageEntries * ENTRY_SIZE)));
    this.#load = options.load;
  }

  /** A table that lies in one piece; the caller has checked that it lies inside the file. */
  static inFile(file: ReadableFile, options: { offset: number; count: number }): EntryTable {
    const { offset, count } = options;
    return new EntryTable({
      count,
      pageEntries: FILE_PAGE_ENTRIES,
      load(page, bytes) {
        file.readExact(bytes, 0, bytes.length, offset + page * FILE_PAGE_ENTRIES * ENTRY_SIZE);
      },
    });
  }

  /**
   * @param index 0 <= index < count.
   * @throws DiskError `damaged` or `failed` when the file cannot give the entry.
   */
  get(index: number): number {
    const page = Math.floor(index / this.#pageEntries);
    if (page !== this.#currentPage) this.#select(page);
    return this.#current[index - page * this.#pageEntries]!;
  }

  #select(page: number): void {
    const known = this.#pages.get(page);
    this.#current = known ?? this.#read(page);
    this.#currentPage = page;
  }

  #read(page: number): Entries {
    const present = Math.min(this.#pageEntries, this.count - page * this.#pageEntries);
    invariant(page >= 0 && present > 0, `page ${page} of a table of ${this.count} entries`);
    const entries = this.#takePage();
    this.#load(page, Buffer.from(entries.buffer, 0, present * ENTRY_SIZE));
    this.#pages.set(page, entries);
    return entries;
  }

  /** A page to fill: a new one, or the oldest, which is then forgotten. */
  #takePage(): Entries {
    if (this.#pages.size < this.#maxPages) return new Uint32Array(this.#pageEntries);
    const [oldest, entries] = this.#pages.entries().next().value!;
    this.#pages.delete(oldest);
    if (oldest === this.#currentPage) this.#currentPage = -1;
    return entries;
  }
}
