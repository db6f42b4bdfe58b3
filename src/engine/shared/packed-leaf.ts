/**
 * Leaves of the chain map that lie in a chunk of a page. Of extents, here: 6 bytes for each run of
 * blocks, where a word for each block would take 4 KiB. Or dense ones (dense-leaf.ts): where most
 * runs are single blocks.
 *
 * In a chunk (chunk-pool.ts): word 0 holds the number of extents and the chunk's class; then, for
 * as many extents as the class has room for, their addresses (1: they read as zero), then their
 * keys of 16 bits: first block (10 bits), length - 1 (6 bits). Ordered by block; blocks in no
 * extent are unmapped.
 *
 * Readers take no lock. What changes under them is only: an extent that is appended (its number is
 * stored last), and the last one's length. Everything else makes a new leaf.
 */
import { CHUNK_WORDS } from './chunk-pool.js';
import { DenseReader, denseData, eachDenseRun } from './dense-leaf.js';
import {
  type Chunk,
  classOf,
  DENSE,
  following,
  headOf,
  LEAF_BLOCKS,
  type LeafMemory,
  type Run,
  type Runs,
  ZERO_ADDRESS,
} from './leaf-shape.js';

const LENGTH_BITS = 6;
export const MAX_LENGTH = 1 << LENGTH_BITS;
const LENGTH_MASK = MAX_LENGTH - 1;
const COUNT_MASK = 0xffff;

/** Extents that fit into a chunk of each class. */
export const EXTENT_ROOM = CHUNK_WORDS.map((words) => Math.floor(((words - 1) * 2) / 3));

/** Index (in halves) of the first key of the leaf at `at`, whose word 0 is `head`. */
function keysOf(at: number, head: number): number {
  return (at + 1 + EXTENT_ROOM[classOf(head)]!) * 2;
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
  readonly #dense = new DenseReader();

  /**
   * The run from `block` on in the leaf at `at`, at most `limit` blocks (which end in the leaf).
   * @returns its length; the next run may be of the same kind.
   */
  find(memory: LeafMemory, at: number, block: number, limit: number): number {
    const { words, halves } = memory;
    const head = words[at]!;
    if ((head & DENSE) !== 0) {
      const found = this.#dense.find(memory, at, block, limit);
      this.address = this.#dense.address;
      return found;
    }
    const count = head & COUNT_MASK;
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
  const size = classOf(head);
  const keys = keysOf(at, head);
  let index = head & COUNT_MASK;
  let { block, count, address } = extent;
  if (index > 0) {
    const key = halves[keys + index - 1]!;
    const first = key >>> LENGTH_BITS;
    const length = (key & LENGTH_MASK) + 1;
    if (block < first + length) return false;
    const last = words[at + index]!;
    const follows = block === first + length && address === following(last, length);
    const more = follows ? Math.min(count, MAX_LENGTH - length) : 0;
    if (index + Math.ceil((count - more) / MAX_LENGTH) > EXTENT_ROOM[size]!) return false;
    if (more > 0) {
      halves[keys + index - 1] = key + more;
      block += more;
      count -= more;
      address = following(address, more);
    }
  } else if (Math.ceil(count / MAX_LENGTH) > EXTENT_ROOM[size]!) {
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
  Atomics.store(words, at, headOf(size, index));
  return true;
}

/**
 * Whether a run is one extent that would be put between others: it overlaps none and joins none.
 * @returns the index that it would have, -1 when it is not.
 */
export function placeBetween({ words, halves }: LeafMemory, at: number, run: Run): number {
  const { block, count, address } = run;
  if (count > MAX_LENGTH) return -1;
  const head = words[at]!;
  const extents = head & COUNT_MASK;
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

/** Whether the leaf's chunk has room for one extent more. */
export function hasRoom({ words }: LeafMemory, at: number): boolean {
  const head = words[at]!;
  return (head & COUNT_MASK) < EXTENT_ROOM[classOf(head)]!;
}

/**
 * Copies a leaf into a chunk of class `size`, with one extent more, which becomes number `place`.
 */
export function copyWithOneMore(
  { words, halves }: LeafMemory,
  from: number,
  target: Chunk & { readonly place: number },
  { block, count, address }: Run,
): void {
  const { at, size, place } = target;
  const head = words[from]!;
  const extents = head & COUNT_MASK;
  const oldKeys = keysOf(from, head);
  const newHead = headOf(size, extents + 1);
  const keys = keysOf(at, newHead);
  words.copyWithin(at + 1, from + 1, from + 1 + place);
  words.copyWithin(at + 2 + place, from + 1 + place, from + 1 + extents);
  halves.copyWithin(keys, oldKeys, oldKeys + place);
  halves.copyWithin(keys + place + 1, oldKeys + place, oldKeys + extents);
  words[at + 1 + place] = address;
  halves[keys + place] = (block << LENGTH_BITS) | (count - 1);
  words[at] = newHead;
}

/** Writes extents into a chunk that no reader knows yet. */
export function writeExtents(memory: LeafMemory, { at, size }: Chunk, runs: Runs): void {
  const { words, halves } = memory;
  const keys = keysOf(at, headOf(size, 0));
  for (let index = 0; index < runs.count; index += 1) {
    words[at + 1 + index] = runs.addresses[index]!;
    halves[keys + index] = (runs.blocks[index]! << LENGTH_BITS) | (runs.lengths[index]! - 1);
  }
  words[at] = headOf(size, runs.count);
}

/** Tells of the runs of blocks of [from, end) that are mapped, in order. */
export function eachPackedRun(
  memory: LeafMemory,
  at: number,
  { from, end }: { readonly from: number; readonly end: number },
  tell: (block: number, count: number, address: number) => void,
): void {
  const { words, halves } = memory;
  const head = words[at]!;
  if ((head & DENSE) !== 0) {
    eachDenseRun(memory, at, { from, end }, tell);
    return;
  }
  const keys = keysOf(at, head);
  for (let index = 0; index < (head & COUNT_MASK); index += 1) {
    const key = halves[keys + index]!;
    const block = key >>> LENGTH_BITS;
    const first = Math.max(block, from);
    const last = Math.min(block + (key & LENGTH_MASK) + 1, end);
    if (first < last) tell(first, last - first, following(words[at + 1 + index]!, first - block));
  }
}

/** The address of block 0 when all blocks are one run (1: of zeroes), 0 when they are not. */
export function packedRun({ words, halves }: LeafMemory, at: number): number {
  const head = words[at]!;
  const address = words[at + 1]!;
  const keys = keysOf(at, head);
  if ((head & COUNT_MASK) !== LEAF_BLOCKS / MAX_LENGTH) return 0;
  for (let index = 0; index < LEAF_BLOCKS / MAX_LENGTH; index += 1) {
    const block = index * MAX_LENGTH;
    if (halves[keys + index]! !== ((block << LENGTH_BITS) | LENGTH_MASK)) return 0;
    if (words[at + 1 + index] !== following(address, block)) return 0;
  }
  return address;
}

/** How many blocks of the leaf at `at` hold data. */
export function packedData(memory: LeafMemory, at: number): number {
  const { words, halves } = memory;
  const head = words[at]!;
  if ((head & DENSE) !== 0) return denseData(memory, at, 0, LEAF_BLOCKS);
  const keys = keysOf(at, head);
  let data = 0;
  for (let index = 0; index < (head & COUNT_MASK); index += 1) {
    if (words[at + 1 + index] !== ZERO_ADDRESS) {
      data += (halves[keys + index]! & LENGTH_MASK) + 1;
    }
  }
  return data;
}
