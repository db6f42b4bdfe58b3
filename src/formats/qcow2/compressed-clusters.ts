/** Reads compressed clusters of a qcow2 image and keeps the last few that were unpacked. */
import { constants, inflateRawSync } from 'node:zlib';
import type { ReadableFile } from '../../storage/host-file.js';
import { damaged } from '../image-error.js';
import { currentBudget } from '../memory-budget.js';
import type { CompressedPlace } from './cluster-map.js';
import { CLUSTER_CACHE_BYTES } from './qcow2-layout.js';
import { unpackZstd } from './zstd.js';

/** Clusters kept at most, however small they are. */
const MAX_KEPT = 256;

/** INVARIANT: at most `CLUSTER_CACHE_BYTES` of unpacked clusters are kept, at least two. */
export class CompressedClusters {
  readonly #file: ReadableFile;
  readonly #clusterSize: number;
  readonly #unpack: (packed: Buffer, size: number) => Uint8Array;
  /** Host offset of the cluster in each place. */
  #offsets = new Float64Array(0);
  #clusters: (Uint8Array | undefined)[] = [];
  readonly #budget = currentBudget();

  constructor(file: ReadableFile, clusterSize: number, compression: 'deflate' | 'zstd') {
    this.#file = file;
    this.#clusterSize = clusterSize;
    this.#unpack = compression === 'zstd' ? unpackZstd : unpackDeflate;
  }

  /**
   * The whole cluster.
   * @param cluster its number on the disk: neighbours are kept in different places.
   * @throws DiskError `damaged` when it does not unpack to exactly a cluster.
   */
  read(cluster: number, place: CompressedPlace): Uint8Array {
    if (this.#clusters.length === 0) this.#makeRoom();
    const slot = cluster % this.#clusters.length;
    const known = this.#clusters[slot];
    if (known !== undefined && this.#offsets[slot] === place.offset) return known;
    const unpacked = this.#unpackFrom(cluster, place);
    if (known === undefined && !this.#budget.grow(this.#clusterSize)) {
      this.#budget.borrow(this.#forget);
      this.#forget();
    }
    this.#clusters[slot] = unpacked;
    this.#offsets[slot] = place.offset;
    return unpacked;
  }

  /** With the first cluster: most images of a long chain have none. */
  #makeRoom(): void {
    const most = Math.floor(CLUSTER_CACHE_BYTES / this.#clusterSize);
    const kept = Math.min(MAX_KEPT, Math.max(2, most));
    this.#offsets = new Float64Array(kept).fill(-1);
    this.#clusters = new Array<Uint8Array | undefined>(kept).fill(undefined);
  }

  readonly #forget = (): void => {
    this.#clusters.fill(undefined);
  };

  #unpackFrom(cluster: number, place: CompressedPlace): Uint8Array {
    // The last sector need not be there to its end.
    const length = Math.min(place.length, this.#file.size - place.offset);
    const packed = this.#budget.scratch(length);
    this.#file.readExact(packed, 0, length, place.offset);
    let unpacked: Uint8Array;
    try {
      unpacked = this.#unpack(packed, this.#clusterSize);
    } catch (error) {
      throw this.#complain(cluster, place, error);
    }
    if (unpacked.length !== this.#clusterSize) throw this.#complain(cluster, place);
    return unpacked;
  }

  #complain(cluster: number, place: CompressedPlace, cause?: unknown): Error {
    const where = `disk offset ${cluster * this.#clusterSize}`;
    const what = `the compressed cluster at ${place.offset} (${where}) cannot be unpacked`;
    return damaged(this.#file.path, what, cause);
  }
}

/** Raw deflate; what follows the end of the stream is ignored. */
function unpackDeflate(packed: Buffer, size: number): Uint8Array {
  return inflateRawSync(packed, {
    // One byte of room beyond the cluster: the whole of it comes in one piece, and too much is
    // noticed.
    chunkSize: Math.max(size + 1, constants.Z_MIN_CHUNK),
    maxOutputLength: size,
    finishFlush: constants.Z_SYNC_FLUSH,
  });
}
