/** Reads a chain of images, top first, the plain way: the model that tests compare with. */
import { createHash } from 'node:crypto';
import type { DiskImage, Extent } from '../../src/engine/disk-image.js';

const BLOCK_SIZE = 64 * 1024;

/** Bytes of the disk as the chain shows it; ranges nobody holds are zeroes. */
export function readChain(images: readonly DiskImage[], offset: number, length: number): Buffer {
  const target = Buffer.alloc(length, 0xee);
  fill(images, 0, target, 0, offset, length);
  return target;
}

function fill(
  images: readonly DiskImage[],
  level: number,
  target: Buffer,
  start: number,
  offset: number,
  length: number,
): void {
  const image = images[level];
  const extent: Extent = { state: 'data', length: 0 };
  const inside =
    image === undefined ? 0 : Math.max(0, Math.min(length, image.virtualSize - offset));
  for (let done = 0; done < inside; done += extent.length) {
    image!.extentAt(offset + done, inside - done, extent);
    if (extent.length < 1 || extent.length > inside - done) {
      throw new Error(`extent of ${extent.length} bytes at ${offset + done}`);
    }
    if (extent.state === 'unallocated') {
      fill(images, level + 1, target, start + done, offset + done, extent.length);
    } else {
      image!.readAt(target, start + done, offset + done, extent.length);
    }
  }
  target.fill(0, start + inside, start + length);
}

/**
 * Whether some image of the chain says that there may be something else than zeroes in the range.
 */
function mayHoldData(images: readonly DiskImage[], offset: number, length: number): number {
  let reach = length;
  for (const image of images) {
    const inside = Math.min(length, image.virtualSize - offset);
    const extent: Extent = { state: 'data', length: 0 };
    for (let at = 0; at < inside; at += extent.length) {
      image.extentAt(offset + at, inside - at, extent);
      if (extent.state === 'data') {
        reach = Math.min(reach, at);
        break;
      }
    }
  }
  return reach;
}

/** The corpus' digest: every 64 KiB block that is not all zero, its number before it. */
export function nonZeroDigest(images: readonly DiskImage[]): { digest: string; blocks: number } {
  const hash = createHash('sha256');
  const zero = Buffer.alloc(BLOCK_SIZE);
  const number = Buffer.alloc(8);
  const size = images[0]!.virtualSize;
  let blocks = 0;
  for (let at = 0; at < size; ) {
    const skip = mayHoldData(images, at, Math.min(size - at, 1024 ** 3));
    if (skip > BLOCK_SIZE) {
      at += skip - (skip % BLOCK_SIZE);
      continue;
    }
    const block = readChain(images, at, Math.min(BLOCK_SIZE, size - at));
    if (!block.equals(zero.subarray(0, block.length))) {
      number.writeBigUInt64LE(BigInt(at / BLOCK_SIZE));
      hash.update(number).update(block);
      blocks += 1;
    }
    at += BLOCK_SIZE;
  }
  return { digest: hash.digest('hex'), blocks };
}
