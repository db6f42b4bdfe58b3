/**
 * Pieces of index pages, for leaves of the chain map that need less than one.
 *
 * A page of chunks serves one class (size). Its first 16 words are its header: class, chunks in
 * use, first free chunk, and its neighbours in the list of pages of that class that have a free
 * chunk; the heads of these lists are in page 0. Chunks and such links are named by the index of
 * their first word; free chunks form a list through their first word. A page without a chunk in use
 * goes back to the pool of pages. The pool's lock guards it all.
 */
import type { PagePool } from './page-pool.js';
import { PAGE_WORDS } from './shared-memory.js';

/** In page 0: the first page with a free chunk, for each class. */
const LISTS = 16;
const HEADER_WORDS = 16;
const CLASS = 0;
const USED = 1;
const FREE = 2;
const NEXT = 3;
const PREVIOUS = 4;

/** Words of a chunk of each class; as many as fit behind a header without a rest worth having. */
export const CHUNK_WORDS = [16, 32, 48, 64, 80, 96, 112, 144, 160, 192, 240, 336, 496] as const;

export class ChunkPool {
  readonly #pages: PagePool;
  readonly #words: Uint32Array;

  constructor(pages: PagePool) {
    this.#pages = pages;
    this.#words = pages.words;
  }

  /**
   * @returns the index of the first word of a chunk of CHUNK_WORDS[size] words, of any content.
   * @throws DiskError ENOMEM when the index has grown to its limit.
   */
  allocate(size: number): number {
    this.#pages.lock();
    try {
      const words = this.#words;
      const page = words[LISTS + size]! || this.#newPage(size);
      const chunk = words[page + FREE]!;
      words[page + FREE] = words[chunk]!;
      words[page + USED] = words[page + USED]! + 1;
      if (words[page + FREE] === 0) this.#unlink(page, size);
      return chunk;
    } finally {
      this.#pages.unlock();
    }
  }

  #newPage(size: number): number {
    const words = this.#words;
    const page = this.#pages.allocateLocked() * PAGE_WORDS;
    const length = CHUNK_WORDS[size]!;
    words[page + CLASS] = size;
    let next = 0;
    const last = page + HEADER_WORDS + (chunksInPage(size) - 1) * length;
    for (let chunk = last; chunk > page; chunk -= length) {
      words[chunk] = next;
      next = chunk;
    }
    words[page + FREE] = next;
    this.#link(page, size);
    return page;
  }

  /** Only for chunks that no thread can reach any more. */
  release(chunk: number): void {
    this.#pages.lock();
    const words = this.#words;
    const page = chunk - (chunk % PAGE_WORDS);
    const size = words[page + CLASS]!;
    const wasFull = words[page + FREE] === 0;
    words[chunk] = words[page + FREE]!;
    words[page + FREE] = chunk;
    words[page + USED] = words[page + USED]! - 1;
    if (words[page + USED] === 0) {
      if (!wasFull) this.#unlink(page, size);
      words.fill(0, page, page + PAGE_WORDS);
      this.#pages.releaseLocked(page / PAGE_WORDS);
    } else if (wasFull) {
      this.#link(page, size);
    }
    this.#pages.unlock();
  }

  #link(page: number, size: number): void {
    const words = this.#words;
    const next = words[LISTS + size]!;
    words[page + NEXT] = next;
    words[page + PREVIOUS] = 0;
    if (next !== 0) words[next + PREVIOUS] = page;
    words[LISTS + size] = page;
  }

  #unlink(page: number, size: number): void {
    const words = this.#words;
    const next = words[page + NEXT]!;
    const previous = words[page + PREVIOUS]!;
    if (next !== 0) words[next + PREVIOUS] = previous;
    if (previous === 0) words[LISTS + size] = next;
    else words[previous + NEXT] = next;
  }
}

function chunksInPage(size: number): number {
  return Math.floor((PAGE_WORDS - HEADER_WORDS) / CHUNK_WORDS[size]!);
}
