/**
 * A table of 32-bit little-endian entries in an image file, read page by page and kept in bounded
 * memory.
 */
import { endianness } from 'node:os';
import { invariant } from '../common/assert.js';
import { KiB, MiB } from '../common/units.js';
import type { ReadableFile } from '../storage/host-file.js';
import { currentBudget, type MemoryBudget, OBJECT_BYTES } from './memory-budget.js';

type Entries = Uint32Array<ArrayBuffer>;

export const ENTRY_SIZE = 4;
/** Most memory of one table, so that a chain of many images stays affordable. */
const MAX_TABLE_MEMORY = 16 * MiB;
const FILE_PAGE_ENTRIES = (16 * KiB) / ENTRY_SIZE;

export interface EntryTableOptions {
  /** The image, for messages. */
  readonly path: string;
  /** Entries in all. */
  readonly count: number;
  /** Entries of one page. */
  readonly pageEntries: number;
  /**
   * Fills `bytes`, the page's first bytes in the file; shorter for the last page. @throws DiskError
   */
  readonly load: (page: number, bytes: Buffer) => void;
}

/**
 * `get` neither allocates nor reads the file while it stays within pages that were seen before. A
 * 64 TiB VDI has a map of 256 MiB: none of it is read before it is asked for.
 *
 * INVARIANT: memory is at most `MAX_TABLE_MEMORY`, at most what the chain's budget has left besides
 * the first page, and at most the table's size rounded up to a page.
 */
export class EntryTable {
  readonly count: number;
  readonly #pageEntries: number;
  readonly #maxPages: number;
  readonly #load: (page: number, bytes: Buffer) => void;
  /**
   * The pages in memory; `#pageIn` says which page each holds (-1: none), `#slotOf` where a page
   * is.
   */
  readonly #slots: Entries[] = [];
  readonly #pageIn: number[] = [];
  readonly #slotOf = new Map<number, number>();
  /** The slot to be filled next, once all are taken: the oldest. */
  #hand = 0;
  readonly #budget: MemoryBudget;
  #currentPage = -1;
  #current: Entries = new Uint32Array(0);

  constructor(options: EntryTableOptions) {
    invariant(endianness() === 'LE', 'entry tables are read as they lie in memory');
    this.count = options.count;
    this.#budget = currentBudget();
    this.#pageEntries = Math.min(options.pageEntries, Math.max(1, options.count));
    this.#maxPages = Math.max(1, Math.floor(MAX_TABLE_MEMORY / (options.pageEntries * ENTRY_SIZE)));
    // One page it needs.
    this.#budget.take(this.#pageEntries * ENTRY_SIZE + OBJECT_BYTES, options.path);
    this.#load = options.load;
  }

  /** A table that lies in one piece; the caller has checked that it lies inside the file. */
  static inFile(
    file: ReadableFile,
    options: { offset: number; count: number; pageEntries?: number },
  ): EntryTable {
    const { offset, count, pageEntries = FILE_PAGE_ENTRIES } = options;
    return new EntryTable({
      path: file.path,
      count,
      pageEntries,
      load(page, bytes) {
        file.readExact(bytes, 0, bytes.length, offset + page * pageEntries * ENTRY_SIZE);
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
    const slot = this.#slotOf.get(page) ?? this.#read(page);
    this.#current = this.#slots[slot]!;
    this.#currentPage = page;
  }

  /** Reads a page and answers its slot. */
  #read(page: number): number {
    const present = Math.min(this.#pageEntries, this.count - page * this.#pageEntries);
    invariant(page >= 0 && present > 0, `page ${page} of a table of ${this.count} entries`);
    const slot = this.#takeSlot();
    this.#load(page, Buffer.from(this.#slots[slot]!.buffer, 0, present * ENTRY_SIZE));
    this.#pageIn[slot] = page;
    this.#slotOf.set(page, slot);
    return slot;
  }

  /** A slot to fill: a new one, or the oldest, whose page is then forgotten. */
  #takeSlot(): number {
    // No page is current while a slot is being filled: loading may fail half way.
    this.#currentPage = -1;
    const bytes = this.#pageEntries * ENTRY_SIZE + OBJECT_BYTES;
    const isFirst = this.#slots.length === 0;
    if (isFirst || (this.#slots.length < this.#maxPages && this.#budget.grow(bytes))) {
      this.#pageIn.push(-1);
      return this.#slots.push(new Uint32Array(this.#pageEntries)) - 1;
    }
    const slot = this.#hand;
    this.#hand = (slot + 1) % this.#slots.length;
    this.#slotOf.delete(this.#pageIn[slot]!);
    this.#pageIn[slot] = -1;
    return slot;
  }
}
