/** What all leaves of the chain map have in common. */

/** Blocks that one leaf stands for. */
export const LEAF_BLOCKS = 1024;
/** In the place of an address: the blocks read as zero. */
export const ZERO_ADDRESS = 1;

/** In word 0 of a leaf in a chunk, beside the number of its entries and the chunk's class. */
export const DENSE = 0x8000;
const CLASS_SHIFT = 16;

/** Index pages, as words and as halves of words. */
export interface LeafMemory {
  readonly words: Uint32Array;
  readonly halves: Uint16Array;
}

/** Blocks of a leaf, and the address of the first one (1: they read as zero). */
export interface Run {
  readonly block: number;
  readonly count: number;
  readonly address: number;
}

/** The runs of a leaf in order, each at most as long as an extent may be. */
export interface Runs {
  readonly count: number;
  readonly blocks: Uint16Array;
  readonly lengths: Uint16Array;
  readonly addresses: Uint32Array;
}

/** A chunk for a leaf: the index of its first word, and its class. */
export interface Chunk {
  readonly at: number;
  /** Index into `CHUNK_WORDS`. */
  readonly size: number;
}

/** The address of the block `count` further on in a run. */
export function following(address: number, count: number): number {
  return address === ZERO_ADDRESS ? address : address + count;
}

/** The class of the chunk that a leaf lies in, from its word 0. */
export function classOf(head: number): number {
  return head >>> CLASS_SHIFT;
}

/** Word 0 of a leaf. */
export function headOf(size: number, entries: number): number {
  return (size << CLASS_SHIFT) | entries;
}

/** The class of the smallest chunk with room for so many, -1 for none. */
export function classFor(rooms: readonly number[], entries: number): number {
  for (let size = 0; size < rooms.length; size += 1) if (rooms[size]! >= entries) return size;
  return -1;
}
