/** Compresses clusters for qcow2 images, several at once on the pool threads. */
import { constants, createDeflateRaw, type DeflateRaw, type ZlibOptions } from 'node:zlib';
import { MiB } from '../../common/units.js';
import { DEFLATE_WINDOW_BITS, WRITTEN_CLUSTER_SIZE } from './qcow2-layout.js';

/** As many as the pool has threads by default. */
const LANES = 4;

/**
 * INVARIANT: each lane packs one cluster at a time. Lanes are kept from cluster to cluster: a
 * deflate state is a quarter of a mebibyte, and making one costs as much as compressing a cluster.
 */
export class ClusterDeflater {
  readonly #lanes = Array.from({ length: LANES }, openLane);

  /**
   * The packed form of each cluster of `source`; undefined for one that would not get smaller. A
   * last one that is not whole is filled up with zeroes.
   */
  async deflate(source: Buffer): Promise<(Buffer | undefined)[]> {
    const count = Math.ceil(source.length / WRITTEN_CLUSTER_SIZE);
    const packed = new Array<Buffer | undefined>(count);
    const work = this.#lanes.map(async (lane, first) => {
      for (let index = first; index < count; index += LANES) {
        const bytes = await pack(lane, clusterAt(source, index * WRITTEN_CLUSTER_SIZE));
        if (bytes.length < WRITTEN_CLUSTER_SIZE) packed[index] = bytes;
      }
    });
    await Promise.all(work);
    return packed;
  }

  close(): void {
    for (const lane of this.#lanes) lane.close();
  }
}

function clusterAt(source: Buffer, offset: number): Buffer {
  const bytes = source.subarray(offset, offset + WRITTEN_CLUSTER_SIZE);
  if (bytes.length === WRITTEN_CLUSTER_SIZE) return bytes;
  const cluster = Buffer.alloc(WRITTEN_CLUSTER_SIZE);
  bytes.copy(cluster);
  return cluster;
}

/** The typings leave out that options of streams are passed on. */
const OPTIONS: ZlibOptions & { readonly highWaterMark: number } = {
  windowBits: DEFLATE_WINDOW_BITS,
  memLevel: constants.Z_MAX_MEMLEVEL,
  // Every write is a whole deflate stream.
  flush: constants.Z_FINISH,
  chunkSize: 2 * WRITTEN_CLUSTER_SIZE,
  // A packed cluster always fits, so that a write never waits for its reader.
  highWaterMark: MiB,
};

function openLane(): DeflateRaw {
  const lane = createDeflateRaw(OPTIONS);
  // The callback of the write has it.
  lane.on('error', () => {});
  return lane;
}

function pack(lane: DeflateRaw, cluster: Buffer): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    lane.write(cluster, (error) => {
      if (error) {
        reject(error);
        return;
      }
      const packed = lane.read() as Buffer;
      lane.reset();
      resolve(packed);
    });
  });
}
