/**
 * Fills a chain map with many ranges, as the opening of a chain does. Leaf by leaf: to set a range
 * makes most leaves anew, and a program that has only just started does that slowly.
 */
import type { ChainMap } from './chain-map.js';
import { LEAF_BLOCKS } from './leaf-shape.js';
import { DATA, type MapKind, ZERO } from './map-words.js';

/** So many ranges are gathered at most, and room is made for so many at first. */
const BATCH = 16_384;
const AT_FIRST = 64;
/** Fewer in one leaf are set one by one: to look at all of its blocks takes longer. */
const FEW = 8;

export class MapLoader {
  readonly #map: ChainMap;
  #blocks = new Float64Array(AT_FIRST);
  #counts = new Uint16Array(AT_FIRST);
  #values = new Uint32Array(AT_FIRST);
  /** Leaf times BATCH plus the number of the range: sorted by it they are in order in each leaf. */
  #keys = new Float64Array(AT_FIRST);
  #size = 0;
  #grown = 0;

  constructor(map: ChainMap) {
    this.#map = map;
  }

  /** As `ChainMap.set`, which may be done later. */
  add(block: number, count: number, kind: MapKind, address = 0): void {
    if (count >= LEAF_BLOCKS) {
      this.#flush();
      this.#grown += this.#map.set(block, count, kind, address);
      return;
    }
    const first = Math.min(count, LEAF_BLOCKS - (block % LEAF_BLOCKS));
    const value = kind === DATA ? address : kind;
    this.#add(block, first, value);
    if (first === count) return;
    this.#add(block + first, count - first, value > ZERO ? value + first : value);
  }

  #add(block: number, count: number, value: number): void {
    if (this.#size === BATCH) this.#flush();
    if (this.#size === this.#keys.length) this.#makeRoom();
    const index = this.#size;
    this.#blocks[index] = block;
    this.#counts[index] = count;
    this.#values[index] = value;
    this.#keys[index] = Math.floor(block / LEAF_BLOCKS) * BATCH + index;
    this.#size += 1;
  }

  #makeRoom(): void {
    const room = this.#size * 4;
    const grow = <A extends Float64Array | Uint32Array | Uint16Array>(larger: A, from: A): A => {
      larger.set(from);
      return larger;
    };
    this.#blocks = grow(new Float64Array(room), this.#blocks);
    this.#counts = grow(new Uint16Array(room), this.#counts);
    this.#values = grow(new Uint32Array(room), this.#values);
    this.#keys = grow(new Float64Array(room), this.#keys);
  }

  /**
   * Sets what is left. @returns by how much the number of DATA blocks grew since the beginning.
   * @throws DiskError ENOMEM.
   */
  finish(): number {
    this.#flush();
    return this.#grown;
  }

  #flush(): void {
    const keys = this.#keys.subarray(0, this.#size).sort();
    for (let from = 0; from < keys.length; ) {
      const leaf = Math.floor(keys[from]! / BATCH);
      let end = from + 1;
      while (end < keys.length && keys[end]! < (leaf + 1) * BATCH) end += 1;
      this.#setLeaf(leaf, keys.subarray(from, end));
      from = end;
    }
    this.#size = 0;
  }

  #setLeaf(leaf: number, keys: Float64Array): void {
    if (keys.length < FEW) {
      for (const key of keys) this.#grown += this.#setOne(key % BATCH);
      return;
    }
    this.#grown += this.#map.changeLeaf(leaf, (words) => {
      for (const key of keys) {
        const index = key % BATCH;
        const first = this.#blocks[index]! % LEAF_BLOCKS;
        const value = this.#values[index]!;
        const step = value > ZERO ? 1 : 0;
        for (let i = 0; i < this.#counts[index]!; i += 1) words[first + i] = value + i * step;
      }
    });
  }

  #setOne(index: number): number {
    const value = this.#values[index]!;
    const block = this.#blocks[index]!;
    const count = this.#counts[index]!;
    if (value > ZERO) return this.#map.set(block, count, DATA, value);
    return this.#map.set(block, count, value as MapKind);
  }
}
