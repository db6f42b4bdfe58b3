/**
 * Hosted (`KDMV`) and ESXi (`COWD`) sparse extents: grains found through a grain directory and
 * grain tables.
 */
import { invariant } from '../../common/assert.js';
import { SECTOR_SIZE } from '../../common/units.js';
import type { Extent, ExtentLocation, ExtentState } from '../../engine/disk-image.js';
import type { ReadableFile } from '../../storage/host-file.js';
import { CompressedGrains } from './compressed-grains.js';
import { damagedExtent, type VmdkExtent } from './extent.js';
import { ENTRY_LOST, type FilePlace, GrainMap } from './grain-map.js';
import { GRAIN_MARKER, GTE_UNALLOCATED, GTE_ZEROED } from './sparse-layout.js';

/**
 * Steps that one `extentAt` takes at most: a run may be told in several parts, a call stays short.
 */
const MAX_RUN_STEPS = 256;

/** What the header of a sparse extent says, in bytes, checked. */
export interface SparseGeometry {
  readonly length: number;
  readonly grainSize: number;
  readonly entriesPerTable: number;
  readonly directoryOffset: number;
  /** Header and descriptor, where neither grains nor tables can lie. */
  readonly own: readonly FilePlace[];
  readonly compressed: boolean;
  /** Whether entry 1 means "reads as zeroes". */
  readonly zeroedGrains: boolean;
  readonly notes: readonly string[];
}

/**
 * INVARIANT: an entry that leads outside the file is found when its grain is read, and fails that
 * read alone.
 */
export class SparseExtent implements VmdkExtent {
  readonly length: number;
  readonly grainSize: number;
  readonly complete = false;
  readonly notes: readonly string[];
  readonly #file: ReadableFile;
  readonly #map: GrainMap;
  readonly #zeroedGrains: boolean;
  readonly #compressed: CompressedGrains | undefined;

  /** @param length bytes of the extent that the disk uses; at most the geometry's. */
  constructor(file: ReadableFile, geometry: SparseGeometry, length: number) {
    const { grainSize, entriesPerTable, directoryOffset } = geometry;
    this.length = length;
    this.grainSize = grainSize;
    this.notes = geometry.notes;
    this.#file = file;
    this.#zeroedGrains = geometry.zeroedGrains;
    this.#map = new GrainMap(file, {
      directoryOffset,
      entriesPerTable,
      grainCount: Math.ceil(geometry.length / grainSize),
      own: geometry.own,
    });
    this.#compressed = geometry.compressed
      ? new CompressedGrains(file, { grainSize, length: geometry.length })
      : undefined;
  }

  extentAt(offset: number, length: number, out: Extent): void {
    const end = offset + length;
    const grainSize = this.grainSize;
    let grain = Math.floor(offset / grainSize);
    const state = this.#stateOf(this.#map.entryOrLost(grain));
    grain = this.#map.next(grain);
    for (let step = 0; step < MAX_RUN_STEPS && grain * grainSize < end; step += 1) {
      if (this.#stateOf(this.#map.entryOrLost(grain)) !== state) break;
      grain = this.#map.next(grain);
    }
    out.state = state;
    out.length = Math.min(grain * grainSize, end) - offset;
  }

  readAt(target: Buffer, targetOffset: number, offset: number, length: number): void {
    const grainSize = this.grainSize;
    let done = 0;
    while (done < length) {
      const at = offset + done;
      const grain = Math.floor(at / grainSize);
      const inGrain = at - grain * grainSize;
      done += this.#readRun(target, targetOffset + done, grain, inGrain, length - done);
    }
  }

  locate(offset: number): ExtentLocation | undefined {
    const grain = Math.floor(offset / this.grainSize);
    const entry = this.#map.entryOrLost(grain);
    if (entry === ENTRY_LOST || this.#stateOf(entry) !== 'data') return undefined;
    const { path: file, size } = this.#file;
    const start = entry * SECTOR_SIZE;
    const inGrain = offset - grain * this.grainSize;
    if (start >= size || this.#map.isOwn(start, this.#storedSize(grain))) return undefined;
    if (this.#compressed !== undefined) {
      return { file, length: this.grainSize - inGrain, compressed: true };
    }
    const length = Math.min(this.grainSize, size - start) - inGrain;
    return length <= 0 ? undefined : { file, offset: start + inGrain, length };
  }

  #stateOf(entry: number): ExtentState {
    if (entry === GTE_UNALLOCATED) return 'unallocated';
    return entry === GTE_ZEROED && this.#zeroedGrains ? 'zero' : 'data';
  }

  /** Reads from the middle of a grain on, at most `limit` bytes; answers how many. */
  #readRun(target: Buffer, at: number, grain: number, inGrain: number, limit: number): number {
    const entry = this.#map.entry(grain);
    const state = this.#stateOf(entry);
    const inFirst = Math.min(this.grainSize - inGrain, limit);
    if (state === 'zero') {
      target.fill(0, at, at + inFirst);
      return inFirst;
    }
    invariant(state === 'data', `read of unallocated VMDK grain ${grain}`);
    const position = entry * SECTOR_SIZE;
    const count = this.#compressed ? inFirst : this.#adjacent(grain, entry, inFirst, limit);
    if (this.#map.isOwn(position, this.#storedSize(grain, inGrain + count))) {
      const what = `VMDK grain ${grain} is said to lie at ${position}`;
      throw damagedExtent(this.#file.path, `${what}, inside the header or a table`);
    }
    if (this.#compressed !== undefined) {
      const data = this.#compressed.grain(grain, position);
      data.copy(target, at, inGrain, inGrain + inFirst);
      return inFirst;
    }
    if (position + inGrain + count > this.#file.size) {
      const { path, size } = this.#file;
      const what = `VMDK grain ${grain} is said to lie at ${position}`;
      throw damagedExtent(path, `${what}, past the end of the file (${size} bytes)`);
    }
    this.#file.readExact(target, at, count, position + inGrain);
    return count;
  }

  /** Bytes, at least `read`, that must be a grain's in the file: of a packed one its marker. */
  #storedSize(grain: number, read = 0): number {
    if (this.#compressed !== undefined) return GRAIN_MARKER.size;
    return Math.max(read, Math.min(this.grainSize, this.length - grain * this.grainSize));
  }

  /**
   * How much of `limit` bytes lies in one piece: ESXi's grains are 512 bytes, and mostly follow
   * each other.
   */
  #adjacent(grain: number, entry: number, inFirst: number, limit: number): number {
    const sectors = this.grainSize / SECTOR_SIZE;
    let count = inFirst;
    for (let next = 1; count < limit; next += 1) {
      if (this.#map.entry(grain + next) !== entry + next * sectors) break;
      count += Math.min(this.grainSize, limit - count);
    }
    return count;
  }
}
