/** The words of which chain maps are made: see `chain-map.ts`. */
import { LEAF_BLOCKS } from './leaf-shape.js';
import { PAGE_WORDS } from './shared-memory.js';

export const UNMAPPED = 0;
export const ZERO = 1;
export const DATA = 2;
export type MapKind = typeof UNMAPPED | typeof ZERO | typeof DATA;

/** The same word as DATA: in an interior page it stands for a run. */
export const RUN = 2;
export const NODE = 3;
export const KIND_MASK = 3;
export const SHARED = 4;
export const PACKED = 8;
const FLAGS = KIND_MASK | SHARED | PACKED;
export const FANOUT_BITS = 9;
export const FANOUT_MASK = 511;

/** Blocks under one entry of an interior page at `level` (1 = its children are leaves). */
export function entryBlocks(level: number): number {
  return LEAF_BLOCKS * 2 ** (FANOUT_BITS * (level - 1));
}

/** Interior levels that a disk of so many blocks needs. */
export function levelsFor(blocks: number): number {
  let levels = 1;
  while (entryBlocks(levels + 1) < blocks) levels += 1;
  return levels;
}

export function nodeOf(word: number): number {
  return (word & ~FLAGS) >>> 0;
}

/** Copies an interior page whose nodes then belong to somebody else. */
export function shareEntries(words: Uint32Array, from: number, to: number): void {
  for (let i = 0; i < PAGE_WORDS; i += 2) {
    const word = words[from + i]!;
    words[to + i] = (word & KIND_MASK) === NODE ? word | SHARED : word;
    words[to + i + 1] = words[from + i + 1]!;
  }
}
