/** Compresses clusters for qcow2 images, several at once on the pool threads. */
import { promisify } from 'node:util';
import { constants, deflateRaw } from 'node:zlib';
import { DEFLATE_WINDOW_BITS, WRITTEN_CLUSTER_SIZE } from './qcow2-layout.js';

const deflate = promisify(deflateRaw);
const OPTIONS = {
  windowBits: DEFLATE_WINDOW_BITS,
  memLevel: constants.Z_MAX_MEMLEVEL,
  // What fits comes in one piece.
  chunkSize: WRITTEN_CLUSTER_SIZE,
};

/**
 * The packed form of each cluster of `source`; undefined for one that would not get smaller. A last
 * one that is not whole is filled up with zeroes.
 */
export function deflateClusters(source: Buffer): Promise<(Buffer | undefined)[]> {
  const packed: Promise<Buffer | undefined>[] = [];
  for (let at = 0; at < source.length; at += WRITTEN_CLUSTER_SIZE) {
    packed.push(deflateCluster(source.subarray(at, at + WRITTEN_CLUSTER_SIZE)));
  }
  return Promise.all(packed);
}

async function deflateCluster(bytes: Buffer): Promise<Buffer | undefined> {
  let cluster = bytes;
  if (bytes.length < WRITTEN_CLUSTER_SIZE) {
    cluster = Buffer.alloc(WRITTEN_CLUSTER_SIZE);
    bytes.copy(cluster);
  }
  const packed = await deflate(cluster, OPTIONS);
  return packed.length < WRITTEN_CLUSTER_SIZE ? packed : undefined;
}
