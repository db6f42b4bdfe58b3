/** How much of a disk is data, told from its extents alone. */
import type { Extent, ImageInfo } from '../engine/disk-image.js';

interface Mapped {
  readonly virtualSize: number;
  extentAt(offset: number, length: number, out: Extent): void;
}

/**
 * Extents that are looked at; images in more pieces, or made to have them, are not walked to the
 * end.
 */
const MAX_EXTENTS = 2 ** 18;

/**
 * Nor those whose tables take so long to read, milliseconds: an import is served by the thread that
 * opens files, too.
 */
const MAX_MS = 2000;
/** How many extents are looked at between looks at the clock. */
const CLOCK_EXTENTS = 64;

/**
 * Bytes of `data` extents: what `ImageInfo.allocatedSize` and `BaseSpec.allocatedSize` say. Exact
 * for disks of up to `MAX_EXTENTS` extents that are read within `MAX_MS`; for others what the part
 * walked suggests for the whole.
 */
export function countData(disk: Mapped): number {
  const extent: Extent = { state: 'data', length: 0 };
  const { virtualSize } = disk;
  let sum = 0;
  let at = 0;
  const started = performance.now();
  for (let count = 0; at < virtualSize && count < MAX_EXTENTS; count += 1) {
    if (count % CLOCK_EXTENTS === 0 && performance.now() - started > MAX_MS) break;
    disk.extentAt(at, virtualSize - at, extent);
    if (extent.state === 'data') sum += extent.length;
    at += extent.length;
  }
  return at < virtualSize ? Math.floor((sum / at) * virtualSize) : sum;
}

/**
 * Completes an image's facts; the size is found when it is asked for, for most callers want the
 * identity alone.
 */
export function infoOf(disk: Mapped, facts: Omit<ImageInfo, 'allocatedSize'>): ImageInfo {
  return {
    ...facts,
    get allocatedSize() {
      return countData(disk);
    },
  };
}
