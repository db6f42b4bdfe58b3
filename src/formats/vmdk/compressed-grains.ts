/**
 * Grains of stream-optimized extents: each a zlib stream behind a marker; the last ones read are
 * kept unpacked.
 */
import { inflateSync } from 'node:zlib';
import { MiB, SECTOR_SIZE } from '../../common/units.js';
import type { ReadableFile } from '../../storage/host-file.js';
import { currentBudget } from '../memory-budget.js';
import { damagedExtent } from './extent.js';
import { GRAIN_MARKER } from './sparse-layout.js';

/** Largest grain that is unpacked; VMware writes 64 KiB. */
export const MAX_COMPRESSED_GRAIN = 4 * MiB;
/** Memory for unpacked grains (at least one is kept). */
const CACHE_SIZE = 4 * MiB;

export class CompressedGrains {
  readonly #file: ReadableFile;
  readonly #grainSize: number;
  readonly #length: number;
  readonly #maxGrains: number;
  /** Grain number -> its bytes, oldest first. */
  readonly #grains = new Map<number, Buffer>();
  readonly #budget = currentBudget();

  /** @param options.length bytes of the extent: its last grain may be shorter. */
  constructor(file: ReadableFile, options: { grainSize: number; length: number }) {
    this.#file = file;
    this.#grainSize = options.grainSize;
    this.#length = options.length;
    this.#maxGrains = Math.max(1, Math.floor(CACHE_SIZE / options.grainSize));
  }

  /**
   * The unpacked bytes of a grain whose marker lies at `position`: at least as many as the extent
   * has of it.
   * @throws DiskError `damaged` (EIO) for a marker of another grain, and for data that do not
   * unpack.
   */
  grain(grain: number, position: number): Buffer {
    const known = this.#grains.get(grain);
    if (known !== undefined) return known;
    const bytes = this.#unpack(grain, position);
    const [oldest] = this.#grains.keys();
    if (this.#grains.size >= this.#maxGrains && oldest !== undefined) this.#grains.delete(oldest);
    else if (!this.#budget.grow(this.#grainSize)) {
      this.#budget.borrow(this.#forget);
      this.#forget();
    }
    this.#grains.set(grain, bytes);
    return bytes;
  }

  readonly #forget = (): void => {
    this.#grains.clear();
  };

  #unpack(grain: number, position: number): Buffer {
    const what = `compressed VMDK grain ${grain} at ${position}`;
    const packed = this.#readPacked(grain, position, what);
    let bytes: Buffer;
    try {
      bytes = inflateSync(packed, {
        chunkSize: this.#grainSize,
        maxOutputLength: this.#grainSize,
      });
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      const error = damagedExtent(this.#file.path, `${what} does not unpack: ${reason}`);
      error.cause = cause;
      throw error;
    }
    const needed = Math.min(this.#grainSize, this.#length - grain * this.#grainSize);
    if (bytes.length < needed) {
      throw damagedExtent(this.#file.path, `${what} unpacks to ${bytes.length} of ${needed} bytes`);
    }
    return bytes;
  }

  #readPacked(grain: number, position: number, what: string): Buffer {
    const { path, size: fileSize } = this.#file;
    const start = position + GRAIN_MARKER.size;
    // The worst that zlib does to bytes it cannot pack, with room to spare.
    const limit = this.#grainSize * 2 + SECTOR_SIZE;
    const packed = this.#budget.scratch(limit);
    if (start > fileSize) throw damagedExtent(path, `${what} lies past the end of the file`);
    this.#file.readExact(packed, 0, GRAIN_MARKER.size, position);
    const { sector, size } = GRAIN_MARKER.decode(packed);
    if (sector !== BigInt((grain * this.#grainSize) / SECTOR_SIZE)) {
      throw damagedExtent(path, `${what} is marked as that of sector ${sector}`);
    }
    if (size === 0 || size > limit || start + size > fileSize) {
      throw damagedExtent(path, `${what} has an impossible packed size of ${size} bytes`);
    }
    this.#file.readExact(packed, 0, size, start);
    return packed.subarray(0, size);
  }
}
