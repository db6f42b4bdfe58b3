/** Reads a chain of images, top first, the plain way: the model that tests compare with. */
import type { DiskImage, Extent } from '../../src/engine/disk-image.js';

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
