/**
 * A leaf of the chain map that spells its 1,024 blocks as extents: 6 bytes for each run of blocks,
 * where a word for each block would take 4 KiB.
 *
 * In a chunk (chunk-pool.ts): word 0 holds the number of extents (lower 16 bits) and the chunk's
 * class; then, for as many extents as the class has room for, their addresses (1: they read as
 * zero), then their keys of 16 bits: first block (10 bits), length - 1 (6 bits). Ordered by block;
 * blocks in no extent are unmapped.
 *
 * Readers take no lock. What changes under them is only: an extent that is appended (its number is
 * stored last), and the last one's length. Everything else makes a new leaf.
 */
import { CHUNK_WORDS } from './chunk-pool.js';

export const LEAF_BLOCKS = 1024;
const LENGTH_BITS = 6;
const MAX_LENGTH = 1 << LENGTH_BITS;
const LENGTH_MASK = MAX_LENGTH - 1;
const ZERO_ADDRESS = 1;

/** Extents that fit into a chunk of each class. */
const ROOM = CHUNK_WORDS.map((words) => Math.floor(((words - 1) * 2) / 3));
/** A leaf of more extents is one word a block. */
export const MAX_EXTENTS = ROOM.at(-1)!;

/** Index pages, as words and as halves of words. */
export interface LeafMemory {
  readonly words: Uint32Array;
  readonly halves: Uint16Array;
}

/** Index (in halves) of the first key of the leaf at `at`, whose word 0 is `head`. */
function keysOf(at: number, head: number): number {
  return (at + 1 + ROOM[head >>> 16]!) * 2;
}

/** How many extents begin at or before the block. */
function extentsUpTo(halves: Uint16Array, keys: number, count: number, block: number): number {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (halves[keys + middle]! >>> LENGTH_BITS <= block) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Finds things in packed leaves. Results are fields, so that nothing is allocated. */
export class PackedReader {
  /** Of the run found: 0 unmapped, 1 zero, else the address of its first block. */
  address = 0;

  /**
   * The run from `block` on in the leaf at `at`, at most `limit` blocks (which end in the leaf).
   * @returns its length; the next run may be of the same kind.
   */
  find(memory: LeafMemory, at: number, block: number, limit: number): number {
    const { words, halves } = memory;
    const head = words[at]!;
    const count = head & 0xffff;
    const keys = keysOf(at, head);
    const low = extentsUpTo(halves, keys, count, block);
    if (low > 0) {
      const key = halves[keys + low - 1]!;
      const first = key >>> LENGTH_BITS;
      const end = first + (key & LENGTH_MASK) + 1;
      if (block < end) {
        const address = words[at + low]!;
        this.address = address === ZERO_ADDRESS ? address : address + (block - first);
        return Math.min(limit, end - block);
      }
    }
    this.address = 0;
    const next = low < count ? halves[keys + low]! >>> LENGTH_BITS : LEAF_BLOCKS;
    return Math.min(limit, next - block);
  }
}

/**
 * Appends blocks after the last extent, while readers may be in the leaf.
 * @returns false when they do not come last or there is no room: nothing has changed then.
 */
export function appendExtent({ words, halves }: LeafMemory, at: number, extent: Run): boolean {
  const head = words[at]!;
  const size = head >>> 16;
  const keys = keysOf(at, head);
  let index = head & 0xffff;
  let { block, count, address } = extent;
  if (index > 0) {
    const key = halves[keys + index - 1]!;
    const first = key >>> LENGTH_BITS;
    const length = (key & LENGTH_MASK) + 1;
    if (block < first + length) return false;
    const last = words[at + index]!;
    const follows = block === first + length && address === following(last, length);
    const more = follows ? Math.min(count, MAX_LENGTH - length) : 0;
    if (index + Math.ceil((count - more) / MAX_LENGTH) > ROOM[size]!) return false;
    if (more > 0) {
      halves[keys + index - 1] = key + more;
      block += more;
      count -= more;
      address = following(address, more);
    }
  } else if (Math.ceil(count / MAX_LENGTH) > ROOM[size]!) {
    return false;
  }
  while (count > 0) {
    const length = Math.min(count, MAX_LENGTH);
    words[at + 1 + index] = address;
    halves[keys + index] = (block << LENGTH_BITS) | (length - 1);
    index += 1;
    block += length;
    count -= length;
    address = following(address, length);
  }
  Atomics.store(words, at, (size << 16) | index);
  return true;
}

/** Blocks of a leaf, and the address of the first one (1: they read as zero). */
export interface Run {
  readonly block: number;
  readonly count: number;
  readonly address: number;
}

function following(address: number, count: number): number {
  return address === ZERO_ADDRESS ? address : address + count;
}

/** The class of the chunk that a leaf with one extent more fits into; -1 for none. */
export function sizeForOneMore({ words }: LeafMemory, at: number): number {
  const head = words[at]!;
  const size = head >>> 16;
  if ((head & 0xffff) < ROOM[size]!) return size;
  return size + 1 < ROOM.length ? size + 1 : -1;
}

/**
 * Whether a run is one extent that would be put between others: it overlaps none and joins none.
 * @returns the index that it would have, -1 when it is not.
 */
export function placeBetween({ words, halves }: LeafMemory, at: number, run: Run): number {
  const { block, count, address } = run;
  if (count > MAX_LENGTH) return -1;
  const head = words[at]!;
  const extents = head & 0xffff;
  const keys = keysOf(at, head);
  const place = extentsUpTo(halves, keys, extents, block);
  if (place > 0) {
    const key = halves[keys + place - 1]!;
    const first = key >>> LENGTH_BITS;
    const length = (key & LENGTH_MASK) + 1;
    if (block < first + length) return -1;
    const isNext = block === first + length;
    if (isNext && following(words[at + place]!, length) === address) return -1;
  }
  if (place < extents) {
    const next = halves[keys + place]! >>> LENGTH_BITS;
    if (block + count > next) return -1;
    const isNext = block + count === next;
    if (isNext && following(address, count) === words[at + 1 + place]) return -1;
  }
  return place;
}

/**
 * Copies a leaf into a chunk of class `size`, with one extent more, which becomes number `place`.
 */
export function copyWithOneMore(
  { words, halves }: LeafMemory,
  from: number,
  target: { readonly at: number; readonly size: number; readonly place: number },
  { block, count, address }: Run,
): void {
  const { at, size, place } = target;
  const head = words[from]!;
  const extents = head & 0xffff;
  const oldKeys = keysOf(from, head);
  const keys = keysOf(at, size << 16);
  words.copyWithin(at + 1, from + 1, from + 1 + place);
  words.copyWithin(at + 2 + place, from + 1 + place, from + 1 + extents);
  halves.copyWithin(keys, oldKeys, oldKeys + place);
  halves.copyWithin(keys + place + 1, oldKeys + place, oldKeys + extents);
  words[at + 1 + place] = address;
  halves[keys + place] = (block << LENGTH_BITS) | (count - 1);
  words[at] = (size << 16) | (extents + 1);
}

/** A leaf being made: extents in order, neighbours of one kind joined as far as they may be. */
export class LeafDraft {
  /** Extents so far. */
  count = 0;
  /** Blocks that hold data. */
  data = 0;
  readonly #blocks = new Uint16Array(LEAF_BLOCKS);
  readonly #lengths = new Uint16Array(LEAF_BLOCKS);
  readonly #addresses = new Uint32Array(LEAF_BLOCKS);

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
      const length = this.#lengths[last]!;
      const follows = at === this.#blocks[last]! + length;
      if (follows && next === following(this.#addresses[last]!, length)) {
        const more = Math.min(rest, MAX_LENGTH - length);
        this.#lengths[last] = length + more;
        rest -= more;
        at += more;
        next = following(next, more);
      }
    }
    while (rest > 0) {
      const length = Math.min(rest, MAX_LENGTH);
      last = this.count;
      this.#blocks[last] = at;
      this.#lengths[last] = length;
      this.#addresses[last] = next;
      this.count = last + 1;
      rest -= length;
      at += length;
      next = following(next, length);
    }
  }

  /** Adds what the leaf at `at` says of the blocks in [from, end). */
  addLeaf({ words, halves }: LeafMemory, at: number, from: number, end: number): void {
    const head = words[at]!;
    const count = head & 0xffff;
    const keys = keysOf(at, head);
    for (let index = 0; index < count; index += 1) {
      const key = halves[keys + index]!;
      const block = key >>> LENGTH_BITS;
      const first = Math.max(block, from);
      const last = Math.min(block + (key & LENGTH_MASK) + 1, end);
      if (first >= last) continue;
      this.add(first, last - first, following(words[at + 1 + index]!, first - block));
    }
  }

  /** The address of block 0 when all blocks are one run (1: of zeroes), 0 when they are not. */
  get run(): number {
    let covered = 0;
    const address = this.#addresses[0]!;
    for (let index = 0; index < this.count; index += 1) {
      if (this.#blocks[index] !== covered) return 0;
      if (this.#addresses[index] !== following(address, covered)) return 0;
      covered += this.#lengths[index]!;
    }
    return covered === LEAF_BLOCKS ? address : 0;
  }

  /** The class of the smallest chunk that it fits into. */
  get size(): number {
    return ROOM.findIndex((room) => room >= this.count);
  }

  /** Writes it into a chunk that no reader knows yet. */
  write({ words, halves }: LeafMemory, at: number, size: number): void {
    const keys = keysOf(at, size << 16);
    for (let index = 0; index < this.count; index += 1) {
      words[at + 1 + index] = this.#addresses[index]!;
      halves[keys + index] = (this.#blocks[index]! << LENGTH_BITS) | (this.#lengths[index]! - 1);
    }
    words[at] = (size << 16) | this.count;
  }

  /** Writes it as a word for each block into a page of zeroes. */
  spell(words: Uint32Array, at: number): void {
    for (let index = 0; index < this.count; index += 1) {
      const block = this.#blocks[index]!;
      const length = this.#lengths[index]!;
      const address = this.#addresses[index]!;
      for (let i = 0; i < length; i += 1) words[at + block + i] = following(address, i);
    }
  }
}

/** The address of block 0 when all blocks are one run (1: of zeroes), 0 when they are not. */
export function packedRun({ words, halves }: LeafMemory, at: number): number {
  const head = words[at]!;
  const address = words[at + 1]!;
  const keys = keysOf(at, head);
  if ((head & 0xffff) !== LEAF_BLOCKS / MAX_LENGTH) return 0;
  for (let index = 0; index < LEAF_BLOCKS / MAX_LENGTH; index += 1) {
    const block = index * MAX_LENGTH;
    if (halves[keys + index]! !== ((block << LENGTH_BITS) | LENGTH_MASK)) return 0;
    if (words[at + 1 + index] !== following(address, block)) return 0;
  }
  return address;
}

/** Extents of the leaf at `at` that hold data, counted in blocks. */
export function packedData({ words, halves }: LeafMemory, at: number): number {
  const head = words[at]!;
  const keys = keysOf(at, head);
  let data = 0;
  for (let index = 0; index < (head & 0xffff); index += 1) {
    if (words[at + 1 + index] !== ZERO_ADDRESS) {
      data += (halves[keys + index]! & LENGTH_MASK) + 1;
    }
  }
  return data;
}
