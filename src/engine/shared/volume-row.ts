/** One open volume's row in shared memory, by name. */
import { alignUp, BLOCK_SIZE } from '../../common/units.js';
import type { OpenVolume } from '../engine.js';
import {
  DELTA,
  DELTA_WORDS,
  type SharedViews,
  VOLUME,
  VOLUME_READ_ONLY,
  VOLUME_STATIC,
  VOLUME_WORDS,
} from './shared-memory.js';

export class VolumeRow {
  readonly index: number;
  readonly #views: SharedViews;
  readonly #at: number;

  constructor(views: SharedViews, index: number) {
    this.index = index;
    this.#views = views;
    this.#at = index * VOLUME_WORDS;
  }

  get(field: number): number {
    return this.#views.volumes[this.#at + field]!;
  }

  set(field: number, value: number): void {
    this.#views.volumes[this.#at + field] = value;
  }

  /** Index of a word for `shared-mutex.ts` and Atomics. */
  word(field: number): number {
    return this.#at + field;
  }

  /** Bytes. */
  get size(): number {
    return this.get(VOLUME.sizeLow) + this.get(VOLUME.sizeHigh) * 2 ** 32;
  }

  set size(bytes: number) {
    this.set(VOLUME.sizeLow, bytes % 2 ** 32);
    this.set(VOLUME.sizeHigh, Math.floor(bytes / 2 ** 32));
  }

  /** Bytes of the base that take space, as found when it was imported. */
  get baseAllocated(): number {
    return this.get(VOLUME.baseAllocatedLow) + this.get(VOLUME.baseAllocatedHigh) * 2 ** 32;
  }

  set baseAllocated(bytes: number) {
    this.set(VOLUME.baseAllocatedLow, bytes % 2 ** 32);
    this.set(VOLUME.baseAllocatedHigh, Math.floor(bytes / 2 ** 32));
  }

  /** Bytes that take space: no more than the disk has, as deltas hide some of the base. */
  get allocated(): number {
    const bytes = this.get(VOLUME.mappedBlocks) * BLOCK_SIZE + this.baseAllocated;
    return Math.min(bytes, alignUp(this.size, BLOCK_SIZE));
  }

  get readOnly(): boolean {
    return (this.get(VOLUME.flags) & VOLUME_READ_ONLY) !== 0;
  }

  get isStatic(): boolean {
    return (this.get(VOLUME.flags) & VOLUME_STATIC) !== 0;
  }

  get headDataFd(): number {
    return this.#views.deltas[this.get(VOLUME.head) * DELTA_WORDS + DELTA.dataFd]!;
  }

  get headTuplesFd(): number {
    return this.#views.deltas[this.get(VOLUME.head) * DELTA_WORDS + DELTA.tuplesFd]!;
  }

  markDirty(): void {
    Atomics.store(this.#views.volumes, this.#at + VOLUME.dirty, 1);
  }

  /** Clears the mark; a write that ends later sets it again. */
  takeDirty(): boolean {
    return Atomics.exchange(this.#views.volumes, this.#at + VOLUME.dirty, 0) !== 0;
  }

  get failed(): boolean {
    return Atomics.load(this.#views.volumes, this.#at + VOLUME.failed) !== 0;
  }

  markFailed(): void {
    this.#views.suspects.mark(this.index);
    Atomics.store(this.#views.volumes, this.#at + VOLUME.failed, 1);
  }
}

/** What users of an open volume see of its row. */
export function describeVolume(views: SharedViews, index: number): OpenVolume {
  const row = new VolumeRow(views, index);
  return {
    handle: index,
    size: row.size,
    readOnly: row.readOnly,
    get allocatedSize(): number {
      return row.allocated;
    },
  };
}
