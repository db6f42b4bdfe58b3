/**
 * The pool of 4 KiB index pages that all volumes draw from.
 *
 * Page 0 is the pool's own: a lock, the number of pages ever handed out, the first free page, the
 * number in use, and the words of `chunk-pool.ts`. Free pages form a list through their first word.
 * A page is handed out filled with zeroes.
 */
import { DiskError } from '../../common/errors.js';
import { PAGE_WORDS, type SharedViews } from './shared-memory.js';
import { lockMutex, unlockMutex } from './shared-mutex.js';

const LOCK = 0;
/** The word that counts the pages ever handed out. */
export const HANDED_OUT = 1;
const FIRST_FREE = 2;
const IN_USE = 3;

/** What a pool lives in: both views are of the same memory. */
export type PoolViews = Pick<SharedViews, 'pages' | 'pageWords'>;

/** As one thread sees it. */
export class PagePool {
  readonly words: Uint32Array;
  /** The same memory. */
  readonly halves: Uint16Array;
  readonly #locks: Int32Array;
  readonly #capacity: number;
  /** Pages that this thread set aside; they do not count as in use. */
  readonly #aside: number[] = [];

  constructor(views: PoolViews) {
    this.words = views.pages;
    this.halves = new Uint16Array(views.pages.buffer);
    this.#locks = views.pageWords;
    this.#capacity = Math.floor(views.pages.length / PAGE_WORDS);
  }

  /** @throws DiskError ENOMEM when the index has grown to its limit. */
  allocate(): number {
    this.lock();
    try {
      return this.allocateLocked();
    } finally {
      this.unlock();
    }
  }

  /** `allocate` for who holds the lock. */
  allocateLocked(): number {
    const page = this.#take() ?? this.#aside.pop();
    if (page === undefined) throw this.#full();
    this.words[IN_USE] = this.words[IN_USE]! + 1;
    return page;
  }

  /**
   * Sees to it that this thread's next `count` pages are there, whatever others take meanwhile.
   * @throws DiskError ENOMEM.
   */
  setAside(count: number): void {
    if (this.#aside.length >= count) return;
    this.lock();
    try {
      while (this.#aside.length < count) {
        const page = this.#take();
        if (page === undefined) throw this.#full();
        this.#aside.push(page);
      }
    } finally {
      this.unlock();
    }
  }

  /** A page that nobody has. */
  #take(): number | undefined {
    const words = this.words;
    const free = words[FIRST_FREE]!;
    if (free !== 0) {
      const start = free * PAGE_WORDS;
      words[FIRST_FREE] = words[start]!;
      words[start] = 0;
      return free;
    }
    const page = words[HANDED_OUT]! + 1;
    if (page >= this.#capacity) return undefined;
    words[HANDED_OUT] = page;
    return page;
  }

  #full(): DiskError {
    return new DiskError('failed', `the block index is full (${this.#capacity} pages)`, {
      errno: 'ENOMEM',
      hint: 'close some disks, or give the machine more memory',
    });
  }

  /** Only for pages that no thread can reach any more. */
  release(page: number): void {
    const start = page * PAGE_WORDS;
    this.words.fill(0, start, start + PAGE_WORDS);
    this.lock();
    this.releaseLocked(page);
    this.unlock();
  }

  /** `release` of a page of zeroes for who holds the lock. */
  releaseLocked(page: number): void {
    const words = this.words;
    words[page * PAGE_WORDS] = words[FIRST_FREE]!;
    words[FIRST_FREE] = page;
    words[IN_USE] = words[IN_USE]! - 1;
  }

  lock(): void {
    lockMutex(this.#locks, LOCK);
  }

  unlock(): void {
    unlockMutex(this.#locks, LOCK);
  }

  /** Bytes of index in use. */
  get bytes(): number {
    return this.words[IN_USE]! * PAGE_WORDS * 4;
  }
}
