/**
 * The nodes of chain maps, for one thread that changes them: where they come from, and what becomes
 * of those that are replaced while readers may still be in them.
 *
 * Readers take no lock, but each announces in a word of its own that it is inside a volume (see
 * gate.ts). A node is given back once every other thread has been seen outside any volume, or at
 * another request, after the node could no longer be reached. The node was unlinked by a
 * sequentially consistent store before it comes here, and a thread announces itself by one before
 * it looks at the map: so who is not seen inside cannot find it.
 */
import { ChunkPool } from './chunk-pool.js';
import { LeafDraft } from './leaf-draft.js';
import type { PagePool } from './page-pool.js';
import { PAGE_WORDS, THREAD, THREAD_WORDS } from './shared-memory.js';

/** So many are gathered before the other threads are looked at. */
const BATCH = 8;

/** The threads that may read maps of this memory. */
export interface Readers {
  readonly threads: Int32Array;
  readonly threadCount: number;
  /** The one that retires: it is in no node while it changes a map. */
  readonly self: number;
}

export class NodePool {
  readonly pages: PagePool;
  readonly chunks: ChunkPool;
  /** Scratch space of whoever makes a leaf. */
  readonly draft = new LeafDraft();
  readonly #readers: Readers | undefined;
  #fresh: number[] = [];
  /** Nodes whose readers of `#seen` are waited for. */
  #waiting: number[] = [];
  /** Two words a thread as they were when the waiting ones were the fresh ones: inside, served. */
  readonly #seen: Int32Array;

  /** @param readers none: nobody reads a map while this thread changes it. */
  constructor(pages: PagePool, readers?: Readers) {
    this.pages = pages;
    this.chunks = new ChunkPool(pages);
    this.#readers = readers;
    this.#seen = new Int32Array((readers?.threadCount ?? 0) * 2);
  }

  /** Gives a node back at once: no thread can reach it. `node` is the index of its first word. */
  release(node: number): void {
    // Chunks never begin where a page does: its header is there.
    if (node % PAGE_WORDS === 0) this.pages.release(node / PAGE_WORDS);
    else this.chunks.release(node);
  }

  /** Gives a node back when nobody can be in it any more. */
  retire(node: number): void {
    if (this.#readers === undefined || this.#readers.threadCount === 1) {
      this.release(node);
      return;
    }
    this.#fresh.push(node);
    if (this.#fresh.length % BATCH === 0) this.#sweep(this.#readers);
  }

  #sweep(readers: Readers): void {
    if (this.#waiting.length > 0 && !this.#allHaveLeft(readers)) return;
    for (const node of this.#waiting) this.release(node);
    this.#waiting = this.#fresh;
    this.#fresh = [];
    for (let thread = 0; thread < readers.threadCount; thread += 1) {
      const at = thread * THREAD_WORDS;
      this.#seen[thread * 2] = Atomics.load(readers.threads, at + THREAD.inside);
      this.#seen[thread * 2 + 1] = Atomics.load(readers.threads, at + THREAD.served);
    }
  }

  /** A thread seen inside is at another request once it left, or has served one more. */
  #allHaveLeft({ threads, threadCount, self }: Readers): boolean {
    for (let thread = 0; thread < threadCount; thread += 1) {
      const seen = this.#seen[thread * 2]!;
      if (thread === self || seen === 0) continue;
      const at = thread * THREAD_WORDS;
      if (Atomics.load(threads, at + THREAD.inside) !== seen) {
        this.#seen[thread * 2] = 0;
        continue;
      }
      if (Atomics.load(threads, at + THREAD.served) === this.#seen[thread * 2 + 1]) return false;
      this.#seen[thread * 2] = 0;
    }
    return true;
  }
}
