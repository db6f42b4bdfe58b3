/**
 * The chain map: for each block of an open volume, what answers for it, whatever the depth of the
 * chain.
 *
 * A radix tree of 4 KiB pages in shared memory. A leaf page holds 1,024 words, one a block (4 MiB
 * of disk): 0 = nothing in the deltas (the base answers), 1 = reads as zero, else an address (see
 * slot-space.ts). An interior page holds 512 entries of two words: kind (or page * 4 + 3) and, for
 * a run, the first address. A run stands for 1,024 consecutive addresses without a leaf; `empty`
 * and `zero` stand for a whole subtree.
 *
 * INVARIANT: readers take no lock. A page is filled before the word that points to it is stored,
 * pages of an open map are never released, and each word is one 32-bit store: a reader sees a block
 * as old or as new. INVARIANT: writers of one map hold its volume's log lock.
 */
import { invariant } from '../common/assert.js';
import type { PagePool } from './page-pool.js';
import { PAGE_WORDS } from './shared-memory.js';

export const UNMAPPED = 0;
export const ZERO = 1;
export const DATA = 2;
export type MapKind = typeof UNMAPPED | typeof ZERO | typeof DATA;

/** The same word as DATA: in an interior page it stands for a run. */
const RUN = 2;
const PAGE = 3;
const LEAF_BLOCKS = 1024;
const FANOUT_BITS = 9;
const FANOUT_MASK = 511;

/** Blocks under one entry of an interior page at `level` (1 = its children are leaves). */
function entryBlocks(level: number): number {
  return LEAF_BLOCKS * 2 ** (FANOUT_BITS * (level - 1));
}

/** Interior levels that a disk of so many blocks needs. */
export function levelsFor(blocks: number): number {
  let levels = 1;
  while (entryBlocks(levels + 1) < blocks) levels += 1;
  return levels;
}

export class ChainMap {
  /** What the last `find` found: kind, address of its first block (DATA only), blocks. */
  kind: MapKind = UNMAPPED;
  address = 0;
  count = 0;

  root: number;
  levels: number;
  readonly #words: Uint32Array;
  readonly #pool: PagePool;

  constructor(words: Uint32Array, pool: PagePool, place: { root: number; levels: number }) {
    this.#words = words;
    this.#pool = pool;
    this.root = place.root;
    this.levels = place.levels;
  }

  /**
   * Finds the longest run of one kind (for DATA: of consecutive addresses) from `block` on, at most
   * `limit`.
   */
  find(block: number, limit: number): void {
    let count = this.#piece(block, limit);
    if (count < limit) {
      const kind = this.kind;
      const address = this.address;
      for (;;) {
        const more = this.#piece(block + count, limit - count);
        if (this.kind !== kind || (kind === DATA && this.address !== address + count)) break;
        count += more;
        if (count >= limit) break;
      }
      this.kind = kind;
      this.address = address;
    }
    this.count = count;
  }

  /** One run inside one leaf or one entry; sets kind and address. */
  #piece(block: number, limit: number): number {
    const words = this.#words;
    const leaf = Math.floor(block / LEAF_BLOCKS);
    const inLeaf = block % LEAF_BLOCKS;
    let page = this.root;
    for (let level = this.levels; level >= 1; level -= 1) {
      const at = page * PAGE_WORDS + ((leaf >>> (FANOUT_BITS * (level - 1))) & FANOUT_MASK) * 2;
      const word = words[at]!;
      if ((word & 3) !== PAGE) {
        this.kind = word as MapKind;
        if (word === RUN) this.address = words[at + 1]! + inLeaf;
        const span = level === 1 ? LEAF_BLOCKS : entryBlocks(level);
        return Math.min(limit, span - (block % span));
      }
      page = word >>> 2;
    }
    return this.#leafPiece(page * PAGE_WORDS + inLeaf, Math.min(limit, LEAF_BLOCKS - inLeaf));
  }

  #leafPiece(at: number, limit: number): number {
    const words = this.#words;
    const first = words[at]!;
    let count = 1;
    if (first <= ZERO) {
      this.kind = first as MapKind;
      while (count < limit && words[at + count] === first) count += 1;
    } else {
      this.kind = DATA;
      this.address = first;
      while (count < limit && words[at + count] === first + count) count += 1;
    }
    return count;
  }

  /**
   * Maps `count` blocks from `block` on to consecutive addresses (DATA) or to one of the other
   * kinds.
   * @returns by how much the number of DATA blocks grew (negative: shrank).
   */
  set(block: number, count: number, kind: MapKind, address = 0): number {
    invariant(kind === DATA ? address > ZERO : address === 0, 'address of a mapped range');
    return this.#setIn(this.root, this.levels, block, count, kind, address);
  }

  /** `block` is relative to what `page` covers. */
  #setIn(
    page: number,
    level: number,
    block: number,
    count: number,
    kind: MapKind,
    address: number,
  ): number {
    const words = this.#words;
    const span = entryBlocks(level);
    let grown = 0;
    let done = 0;
    while (done < count) {
      const at = page * PAGE_WORDS + Math.floor((block + done) / span) * 2;
      const inner = (block + done) % span;
      const part = Math.min(count - done, span - inner);
      const word = words[at]!;
      const whole = part === span && (kind !== DATA || level === 1);
      if (whole && (word & 3) !== PAGE) {
        grown += (kind === DATA ? span : 0) - (word === RUN ? span : 0);
        if (kind === DATA) words[at + 1] = address + done;
        Atomics.store(words, at, kind);
      } else if (!((word & 3) !== PAGE && word === kind && kind !== DATA)) {
        const child = this.#child(at, level);
        const value = kind === DATA ? address + done : 0;
        grown +=
          level === 1
            ? this.#setLeaf(child, inner, part, kind, value)
            : this.#setIn(child, level - 1, inner, part, kind, value);
      }
      done += part;
    }
    return grown;
  }

  #setLeaf(page: number, block: number, count: number, kind: MapKind, address: number): number {
    const words = this.#words;
    const start = page * PAGE_WORDS + block;
    let before = 0;
    for (let i = 0; i < count; i += 1) {
      if (words[start + i]! > ZERO) before += 1;
      words[start + i] = kind === DATA ? address + i : kind;
    }
    return (kind === DATA ? count : 0) - before;
  }

  /**
   * The page below the entry at `at`; an entry that stands for a whole range is spelled out into
   * one.
   */
  #child(at: number, level: number): number {
    const words = this.#words;
    const word = words[at]!;
    if ((word & 3) === PAGE) return word >>> 2;
    const page = this.#pool.allocate();
    const start = page * PAGE_WORDS;
    if (level > 1) {
      if (word === ZERO) for (let i = 0; i < PAGE_WORDS; i += 2) words[start + i] = ZERO;
    } else if (word === ZERO) {
      words.fill(ZERO, start, start + PAGE_WORDS);
    } else if (word === RUN) {
      const first = words[at + 1]!;
      for (let i = 0; i < PAGE_WORDS; i += 1) words[start + i] = first + i;
    }
    Atomics.store(words, at, page * 4 + PAGE);
    return page;
  }

  /** Gives all pages back, the root included. Only when no thread can reach the map. */
  release(): void {
    this.#releasePage(this.root, this.levels);
  }

  #releasePage(page: number, level: number): void {
    if (level > 0) {
      const start = page * PAGE_WORDS;
      for (let i = 0; i < PAGE_WORDS; i += 2) {
        const word = this.#words[start + i]!;
        if ((word & 3) === PAGE) this.#releasePage(word >>> 2, level - 1);
      }
    }
    this.#pool.release(page);
  }
}
