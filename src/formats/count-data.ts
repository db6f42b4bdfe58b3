/** How much of a disk is data, told from its extents alone. */
import type { Extent } from '../engine/disk-image.js';

interface Mapped {
  readonly virtualSize: number;
  extentAt(offset: number, length: number, out: Extent): void;
}

/** Bytes of `data` extents: what `ImageInfo.allocatedSize` and `BaseSpec.allocatedSize` say. */
export function countData(disk: Mapped): number {
  const extent: Extent = { state: 'data', length: 0 };
  let sum = 0;
  for (let at = 0; at < disk.virtualSize; at += extent.length) {
    disk.extentAt(at, disk.virtualSize - at, extent);
    if (extent.state === 'data') sum += extent.length;
  }
  return sum;
}
