/**
 * The chain map: for each block of an open volume, what answers for it, whatever the depth of the
 * chain.
 *
 * A radix tree in shared memory. A leaf stands for 1,024 blocks (4 MiB of disk): in a chunk of a
 * page (packed-leaf.ts) or, where that does not do, a page with a word for each block: 0 = nothing
 * in the deltas (the base answers), 1 = reads as zero, else an address (see slot-space.ts). An
 * interior page holds 512 entries of two words: kind or node, and, for a run, the first address. A
 * run stands for 1,024 consecutive addresses without a leaf; unmapped and zero stand for a whole
 * subtree. The word of a node: index of its first word (a multiple of 16), whether it is packed,
 * whether it belongs to a sealed map (sealed-maps.ts), and NODE.
 *
 * INVARIANT: readers take no lock. A node is filled before the word that points to it is stored, a
 * node that was replaced is given back when no reader can be in it (node-pool.ts), and each
 * change is one store of a word: a reader sees a block as old or as new. INVARIANT: writers of one
 * map hold its volume's log lock. INVARIANT: nodes of a sealed map are never changed.
 */
import { invariant } from '../../common/assert.js';
import { copyDenseWith, denseClassWith, denseData } from './dense-leaf.js';
import { classOf, DENSE, LEAF_BLOCKS, type Run } from './leaf-shape.js';
import { MapReader } from './map-reader.js';
import {
  DATA,
  entryBlocks,
  FANOUT_BITS,
  FANOUT_MASK,
  KIND_MASK,
  type MapKind,
  NODE,
  nodeOf,
  PACKED,
  RUN,
  SHARED,
  shareEntries,
  UNMAPPED,
  ZERO,
} from './map-words.js';
import {
  appendExtent,
  copyWithOneMore,
  hasRoom,
  packedData,
  packedRun,
  placeBetween,
} from './packed-leaf.js';
import { PAGE_WORDS } from './shared-memory.js';

/** More blocks at a time are rather the beginning of something that extents are for. */
const MOST_INTO_DENSE = 8;

/** New nodes for a range: two leaves, and a path to each; twice, for it may come in two parts. */
const NODES_A_RANGE = 16;
/** Interior pages that a range covers stand for so many blocks each, or more. */
const BLOCKS_A_NODE = LEAF_BLOCKS << FANOUT_BITS;

export class ChainMap extends MapReader {
  /**
   * Sees to it that there is memory for `set` of so many blocks, by this thread.
   * @throws DiskError ENOMEM, with nothing changed.
   */
  prepareToSet(count: number): void {
    this.nodes.pages.setAside(NODES_A_RANGE + Math.ceil(count / BLOCKS_A_NODE));
  }

  /**
   * Maps `count` blocks from `block` on to consecutive addresses (DATA) or to one of the other
   * kinds.
   * @returns by how much the number of DATA blocks grew (negative: shrank).
   */
  set(block: number, count: number, kind: MapKind, address = 0): number {
    invariant(kind === DATA ? address > ZERO : address === 0, 'address of a mapped range');
    const value = kind === DATA ? address : kind;
    return this.#setIn(this.root * PAGE_WORDS, this.levels, block, count, value);
  }

  /** `block` is relative to what `node` covers; `value` is 0, 1, or the first block's address. */
  #setIn(node: number, level: number, block: number, count: number, value: number): number {
    const span = entryBlocks(level);
    let grown = 0;
    let done = 0;
    while (done < count) {
      const at = node + Math.floor((block + done) / span) * 2;
      const inner = (block + done) % span;
      const part = Math.min(count - done, span - inner);
      const first = value > ZERO ? value + done : value;
      if (level === 1) grown += this.#setLeaf(at, inner, part, first);
      else grown += this.#setSubtree(at, level, inner, part, first);
      done += part;
    }
    return grown;
  }

  #setSubtree(at: number, level: number, inner: number, part: number, value: number): number {
    const word = this.words[at]!;
    if ((word & KIND_MASK) !== NODE && value <= ZERO) {
      if (word === value) return 0;
      if (part === entryBlocks(level)) {
        Atomics.store(this.words, at, value);
        return 0;
      }
    }
    return this.#setIn(this.#child(at), level - 1, inner, part, value);
  }

  /** The interior page below the entry at `at`, as one that this map may change. */
  #child(at: number): number {
    const words = this.words;
    const word = words[at]!;
    const isNode = (word & KIND_MASK) === NODE;
    if (isNode && (word & SHARED) === 0) return nodeOf(word);
    const child = this.nodes.pages.allocate() * PAGE_WORDS;
    if (isNode) shareEntries(words, nodeOf(word), child);
    else if (word === ZERO) {
      for (let i = 0; i < PAGE_WORDS; i += 2) words[child + i] = ZERO;
    }
    Atomics.store(words, at, child | NODE);
    return child;
  }

  /** Sets blocks of the leaf under the entry at `at`. */
  #setLeaf(at: number, inner: number, part: number, value: number): number {
    const words = this.words;
    const word = words[at]!;
    const isNode = (word & KIND_MASK) === NODE;
    if (part === LEAF_BLOCKS) return this.#setEntry(at, value, this.#dataUnder(word));
    if (!isNode && word === value && value <= ZERO) return 0;
    if (isNode && (word & PACKED) === 0) {
      return this.#setSpelled(this.#ownSpelled(at), inner, part, value);
    }
    if (isNode && value !== UNMAPPED) {
      const run = { block: inner, count: part, address: value };
      const isDense = (words[nodeOf(word)]! & DENSE) !== 0;
      const grown = isDense ? this.#setDense(at, run) : this.#addExtent(at, run);
      if (grown !== undefined) return grown;
    }
    return this.#redraft(at, inner, part, value);
  }

  /**
   * The quick ways: a run that touches nothing that is mapped, as most new blocks do. @returns by
   * how much DATA grew, undefined where it is none.
   */
  #addExtent(at: number, run: Run): number | undefined {
    const memory = this.nodes.pages;
    const word = memory.words[at]!;
    const leaf = nodeOf(word);
    const grown = run.address > ZERO ? run.count : 0;
    if ((word & SHARED) === 0 && appendExtent(memory, leaf, run)) {
      if (run.block + run.count === LEAF_BLOCKS) this.#fold(at);
      return grown;
    }
    const place = hasRoom(memory, leaf) ? placeBetween(memory, leaf, run) : -1;
    if (place < 0) return undefined;
    const size = classOf(memory.words[leaf]!);
    const chunk = this.nodes.chunks.allocate(size);
    copyWithOneMore(memory, leaf, { at: chunk, size, place }, run);
    this.#putChunk(at, chunk);
    return grown;
  }

  /** The quick way of dense leaves: a few blocks. @returns as above. */
  #setDense(at: number, run: Run): number | undefined {
    if (run.count > MOST_INTO_DENSE) return undefined;
    const memory = this.nodes.pages;
    const leaf = nodeOf(memory.words[at]!);
    const size = denseClassWith(memory, leaf, run);
    if (size < 0) return undefined;
    const before = denseData(memory, leaf, run.block, run.block + run.count);
    const chunk = this.nodes.chunks.allocate(size);
    copyDenseWith(memory, leaf, { at: chunk, size }, run);
    this.#putChunk(at, chunk);
    return (run.address > ZERO ? run.count : 0) - before;
  }

  /** Puts a leaf in a chunk in the place of what the entry at `at` has. */
  #putChunk(at: number, chunk: number): void {
    const old = this.words[at]!;
    Atomics.store(this.words, at, chunk | PACKED | NODE);
    this.#retire(old);
  }

  /** A packed leaf that came to be one run needs no leaf. */
  #fold(at: number): void {
    const run = packedRun(this.nodes.pages, nodeOf(this.words[at]!));
    if (run > UNMAPPED) this.#setEntry(at, run, 0);
  }

  /** Lets the entry at `at` say what all its blocks are. @returns by how much DATA grew. */
  #setEntry(at: number, value: number, before: number): number {
    const words = this.words;
    const old = words[at]!;
    if (value > ZERO) words[at + 1] = value;
    Atomics.store(words, at, value > ZERO ? RUN : value);
    this.#retire(old);
    return (value > ZERO ? LEAF_BLOCKS : 0) - before;
  }

  /** Gives a node back that the map names no longer, unless it is a sealed map's. */
  #retire(word: number): void {
    if ((word & KIND_MASK) === NODE && (word & SHARED) === 0) this.nodes.retire(nodeOf(word));
  }

  /** DATA blocks of a leaf or of an entry that stands for one. */
  #dataUnder(word: number): number {
    if (word === RUN) return LEAF_BLOCKS;
    if ((word & KIND_MASK) !== NODE) return 0;
    const node = nodeOf(word);
    if ((word & PACKED) !== 0) return packedData(this.nodes.pages, node);
    let data = 0;
    for (let i = 0; i < LEAF_BLOCKS; i += 1) if (this.words[node + i]! > ZERO) data += 1;
    return data;
  }

  /** The spelled leaf under the entry at `at`, as one that this map may change. */
  #ownSpelled(at: number): number {
    const words = this.words;
    const word = words[at]!;
    const node = nodeOf(word);
    if ((word & SHARED) === 0) return node;
    const own = this.nodes.pages.allocate() * PAGE_WORDS;
    words.copyWithin(own, node, node + PAGE_WORDS);
    Atomics.store(words, at, own | NODE);
    return own;
  }

  #setSpelled(node: number, block: number, count: number, value: number): number {
    const words = this.words;
    const start = node + block;
    let before = 0;
    for (let i = 0; i < count; i += 1) {
      if (words[start + i]! > ZERO) before += 1;
      words[start + i] = value > ZERO ? value + i : value;
    }
    return (value > ZERO ? count : 0) - before;
  }

  /** Makes the leaf under the entry at `at` anew, with some blocks set. */
  #redraft(at: number, inner: number, part: number, value: number): number {
    const { draft } = this.nodes;
    const before = this.#dataUnder(this.words[at]!);
    draft.clear();
    this.#addOld(at, 0, inner);
    draft.add(inner, part, value);
    this.#addOld(at, inner + part, LEAF_BLOCKS);
    return this.#putDraft(at, before);
  }

  /**
   * Changes many blocks of one leaf (which begins at block `leaf` * 1,024).
   * @param change gets a word for each block: 0 unmapped, 1 zero, else an address.
   * @returns as `set`.
   */
  changeLeaf(leaf: number, change: (words: Uint32Array) => void): number {
    let node = this.root * PAGE_WORDS;
    for (let level = this.levels; level > 1; level -= 1) {
      node = this.#child(node + ((leaf >>> (FANOUT_BITS * (level - 1))) & FANOUT_MASK) * 2);
    }
    const at = node + (leaf & FANOUT_MASK) * 2;
    const { draft } = this.nodes;
    const before = this.#dataUnder(this.words[at]!);
    draft.clear();
    this.#addOld(at, 0, LEAF_BLOCKS);
    draft.change(change);
    return this.#putDraft(at, before);
  }

  /** Puts the draft in the place of what the entry at `at` has. @returns as above. */
  #putDraft(at: number, before: number): number {
    const words = this.words;
    const old = words[at]!;
    const { draft } = this.nodes;
    const { run, count, data } = draft;
    if (count === 0) return this.#setEntry(at, UNMAPPED, before);
    if (run !== 0) return this.#setEntry(at, run, before);
    const { size } = draft;
    if (size < 0) {
      const page = this.nodes.pages.allocate() * PAGE_WORDS;
      draft.spell(words, page);
      Atomics.store(words, at, page | NODE);
      this.#retire(old);
    } else {
      const chunk = this.nodes.chunks.allocate(size);
      draft.write(this.nodes.pages, { at: chunk, size });
      this.#putChunk(at, chunk);
    }
    return data - before;
  }

  /** Adds blocks [from, end) to the draft, as the entry at `at` has them. */
  #addOld(at: number, from: number, end: number): void {
    const word = this.words[at]!;
    if (from >= end) return;
    if ((word & KIND_MASK) === NODE) {
      if ((word & PACKED) === 0) this.nodes.draft.addWords(this.words, nodeOf(word), from, end);
      else this.nodes.draft.addLeaf(this.nodes.pages, nodeOf(word), from, end);
    } else {
      const value = word === RUN ? this.words[at + 1]! + from : word;
      this.nodes.draft.add(from, end - from, value);
    }
  }

  /** Gives all nodes back, the root included. Only when no thread can reach the map. */
  release(): void {
    this.#releasePage(this.root * PAGE_WORDS, this.levels);
  }

  #releasePage(page: number, level: number): void {
    for (let i = 0; i < PAGE_WORDS; i += 2) {
      const word = this.words[page + i]!;
      if ((word & KIND_MASK) !== NODE || (word & SHARED) !== 0) continue;
      if (level > 1) this.#releasePage(nodeOf(word), level - 1);
      else this.nodes.release(nodeOf(word));
    }
    this.nodes.release(page);
  }
}
