/** Finding things in a chain map (`chain-map.ts`), on any thread, while others change it. */
import { LEAF_BLOCKS } from './leaf-shape.js';
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
  UNMAPPED,
  ZERO,
} from './map-words.js';
import type { NodePool } from './node-pool.js';
import { PackedReader } from './packed-leaf.js';
import { PAGE_WORDS } from './shared-memory.js';

/** Where a map is. */
export interface MapPlace {
  /** Number of the root's page. */
  readonly root: number;
  readonly levels: number;
}

export class MapReader {
  /** What the last `find` found: kind, address of its first block (DATA only), blocks. */
  kind: MapKind = UNMAPPED;
  address = 0;
  count = 0;

  root: number;
  levels: number;
  protected readonly words: Uint32Array;
  protected readonly nodes: NodePool;
  readonly #packed = new PackedReader();

  constructor(nodes: NodePool, { root, levels }: MapPlace) {
    this.words = nodes.pages.words;
    this.nodes = nodes;
    this.root = root;
    this.levels = levels;
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
    const words = this.words;
    const leaf = Math.floor(block / LEAF_BLOCKS);
    const inLeaf = block % LEAF_BLOCKS;
    let node = this.root * PAGE_WORDS;
    let word = 0;
    for (let level = this.levels; level >= 1; level -= 1) {
      const at = node + ((leaf >>> (FANOUT_BITS * (level - 1))) & FANOUT_MASK) * 2;
      word = words[at]!;
      if ((word & KIND_MASK) !== NODE) {
        this.kind = word as MapKind;
        if (word === RUN) this.address = words[at + 1]! + inLeaf;
        const span = level === 1 ? LEAF_BLOCKS : entryBlocks(level);
        return Math.min(limit, span - (block % span));
      }
      node = nodeOf(word);
    }
    const most = Math.min(limit, LEAF_BLOCKS - inLeaf);
    if ((word & PACKED) === 0) return this.#spelledPiece(node + inLeaf, most);
    const count = this.#packed.find(this.nodes.pages, node, inLeaf, most);
    const { address } = this.#packed;
    this.kind = address > ZERO ? DATA : (address as MapKind);
    this.address = address;
    return count;
  }

  #spelledPiece(at: number, limit: number): number {
    const words = this.words;
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
}
