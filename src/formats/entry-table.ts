/** A table of 32-bit little-endian entries in an image file, read page by page and kept in bounded memory. */
import { endianness } from 'node:os';
import { invariant } from '../common/assert.js';
import { KiB } from '../common/units.js';
import type { ReadableFile } from '../storage/host-file.js';

type Entries = Uint32Array<ArrayBuffer>;

const ENTRY_SIZE = 4;
const PAGE_SIZE = 16 * KiB;
const PAGE_ENTRIES = PAGE_SIZE / ENTRY_SIZE;
/** Pages kept: 4 MiB a table, so that a chain of many images stays affordable. */
const MAX_PAGES = 256;

/**
 * `get` neither allocates nor reads the file while it stays within pages that were seen before. A 64 TiB VDI has a map of
 * 256 MiB: none of it is read before it is asked for.
 *
 * INVARIANT: memory is at most `MAX_PAGES` pages, and at most the table's size rounded up to a page.
 */
export class EntryTable {
  readonly count: number;
  readonly #file: ReadableFile;
  readonly #offset: number;
  /** Page number -> its entries, oldest first. */
  readonly #pages = new Map<number, Entries>();
  #currentPage = -1;
  #current: Entries = new Uint32Array(0);

  /** `offset` and the table's end must lie inside the file: the caller has checked it against `file.size`. */
  constructor(file: ReadableFile, options: { offset: number; count: number }) {
    invariant(endianness() === 'LE', 'entry tables are read as they lie in memory');
    this.#file = file;
    this.#offset = options.offset;
    this.count = options.count;
  }

  /**
   * @param index 0 <= index < count.
   * @throws DiskError `damaged` or `failed` when the file cannot give the entry.
   */
  get(index: number): number {
    const page = (index / PAGE_ENTRIES) | 0;
    if (page !== this.#currentPage) this.#select(page);
    return this.#current[index - page * PAGE_ENTRIES]!;
  }

  #select(page: number): void {
    const known = this.#pages.get(page);
    this.#current = known ?? this.#load(page);
    this.#currentPage = page;
  }

  #load(page: number): Entries {
    const first = page * PAGE_ENTRIES;
    const entries = this.#takePage();
    const bytes = Buffer.from(entries.buffer, entries.byteOffset, PAGE_SIZE);
    const length = Math.min(PAGE_ENTRIES, this.count - first) * ENTRY_SIZE;
    invariant(length > 0, `page ${page} of a table of ${this.count}`);
    this.#file.readExact(bytes, 0, length, this.#offset + first * ENTRY_SIZE);
    this.#pages.set(page, entries);
    return entries;
  }

  /** A page to fill: a new one, or the oldest, which is then forgotten. */
  #takePage(): Entries {
    if (this.#pages.size < MAX_PAGES) return new Uint32Array(PAGE_ENTRIES);
    const [oldest, entries] = this.#pages.entries().next().value!;
    this.#pages.delete(oldest);
    if (oldest === this.#currentPage) this.#currentPage = -1;
    return entries;
  }
}
