/**
 * A leaf of the chain map being made: its runs, from which follows what takes least memory. Extents
 * (packed-leaf.ts), an entry for each block that is mapped (dense-leaf.ts), or a page with a word
 * for each block.
 */
import { type Density, denseClass, writeDense } from './dense-leaf.js';
import {
  type Chunk,
  classFor,
  following,
  LEAF_BLOCKS,
  type LeafMemory,
  type Runs,
  ZERO_ADDRESS,
} from './leaf-shape.js';
import { EXTENT_ROOM, eachPackedRun, MAX_LENGTH, writeExtents } from './packed-leaf.js';

/** The class of a dense leaf with next to nothing in it. */
const SMALLEST_DENSE = denseClass({ blocks: 1, lowest: 0, highest: 0 });

/** The word of the block `count` further on in a run. */
function sameRun(value: number, count: number): number {
  return value === 0 ? 0 : following(value, count);
}

/** Neighbours of one kind are joined as far as an extent may be long. */
export class LeafDraft implements Runs {
  /** Extents so far. */
  count = 0;
  /** Blocks that hold data. */
  data = 0;
  readonly blocks = new Uint16Array(LEAF_BLOCKS);
  readonly lengths = new Uint16Array(LEAF_BLOCKS);
  readonly addresses = new Uint32Array(LEAF_BLOCKS);
  readonly #words = new Uint32Array(LEAF_BLOCKS);

  readonly #add = (block: number, count: number, address: number): void => {
    this.add(block, count, address);
  };

  clear(): void {
    this.count = 0;
    this.data = 0;
  }

  /** Blocks after all that were added before; `address` 0 adds nothing. */
  add(block: number, count: number, address: number): void {
    if (address === 0) return;
    if (address !== ZERO_ADDRESS) this.data += count;
    let last = this.count - 1;
    let rest = count;
    let at = block;
    let next = address;
    if (last >= 0) {
      const length = this.lengths[last]!;
      const follows = at === this.blocks[last]! + length;
      if (follows && next === following(this.addresses[last]!, length)) {
        const more = Math.min(rest, MAX_LENGTH - length);
        this.lengths[last] = length + more;
        rest -= more;
        at += more;
        next = following(next, more);
      }
    }
    while (rest > 0) {
      const length = Math.min(rest, MAX_LENGTH);
      last = this.count;
      this.blocks[last] = at;
      this.lengths[last] = length;
      this.addresses[last] = next;
      this.count = last + 1;
      rest -= length;
      at += length;
      next = following(next, length);
    }
  }

  /** Adds what the leaf at `at` says of the blocks in [from, end). */
  addLeaf(memory: LeafMemory, at: number, from: number, end: number): void {
    eachPackedRun(memory, at, { from, end }, this.#add);
  }

  /** Adds blocks [from, end) as a page at `at` has a word for each. */
  addWords(words: Uint32Array, at: number, from: number, end: number): void {
    for (let block = from; block < end; ) {
      const value = words[at + block]!;
      let count = 1;
      while (block + count < end && words[at + block + count] === sameRun(value, count)) count += 1;
      this.add(block, count, value);
      block += count;
    }
  }

  /** Has a word for each block changed. */
  change(change: (words: Uint32Array) => void): void {
    const words = this.#words.fill(0);
    this.spell(words, 0);
    change(words);
    this.clear();
    this.addWords(words, 0, 0, LEAF_BLOCKS);
  }

  /** The address of block 0 when all blocks are one run (1: of zeroes), 0 when they are not. */
  get run(): number {
    let covered = 0;
    const address = this.addresses[0]!;
    for (let index = 0; index < this.count; index += 1) {
      if (this.blocks[index] !== covered) return 0;
      if (this.addresses[index] !== following(address, covered)) return 0;
      covered += this.lengths[index]!;
    }
    return covered === LEAF_BLOCKS ? address : 0;
  }

  /** The class of the smallest chunk that it fits into; -1: it takes a page of words. */
  get size(): number {
    const extents = classFor(EXTENT_ROOM, this.count);
    if (extents >= 0 && extents <= SMALLEST_DENSE) return extents;
    const dense = denseClass(this.#density());
    // Extents are the ones that can be added to in place.
    return dense >= 0 && (extents < 0 || dense < extents) ? dense : extents;
  }

  /** Writes it into a chunk of that class that no reader knows yet. */
  write(memory: LeafMemory, chunk: Chunk): void {
    if (EXTENT_ROOM[chunk.size]! >= this.count) writeExtents(memory, chunk, this);
    else writeDense(memory, chunk, this.#density(), this);
  }

  /** Writes it as a word for each block into a page of zeroes. */
  spell(words: Uint32Array, at: number): void {
    for (let index = 0; index < this.count; index += 1) {
      const block = this.blocks[index]!;
      const length = this.lengths[index]!;
      const address = this.addresses[index]!;
      for (let i = 0; i < length; i += 1) words[at + block + i] = following(address, i);
    }
  }

  #density(): Density {
    let blocks = 0;
    let lowest = 0;
    let highest = 0;
    for (let index = 0; index < this.count; index += 1) {
      const length = this.lengths[index]!;
      const address = this.addresses[index]!;
      blocks += length;
      if (address === ZERO_ADDRESS) continue;
      lowest = lowest === 0 ? address : Math.min(lowest, address);
      highest = Math.max(highest, address + length - 1);
    }
    return { blocks, lowest, highest };
  }
}
