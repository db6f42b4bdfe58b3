/** Who answers in a chain of images, and where on the host the bytes lie. */
import type { MapExtent } from '../common/extent-map.js';
import type { DiskImage, Extent } from '../engine/disk-image.js';

/**
 * Describes the run at `offset`, at most `length` bytes of it, into `out`, going down while an
 * image says `unallocated`.
 * @param images top first; the range lies in the top one.
 * @returns the depth of the image that answers; where none does (`unallocated`), of the last one
 * asked.
 */
export function findAnswer(
  images: readonly DiskImage[],
  offset: number,
  length: number,
  out: Extent,
): number {
  out.length = length;
  let depth = 0;
  for (let index = 0; index < images.length; index += 1) {
    const image = images[index]!;
    const size = image.virtualSize;
    // Beyond a shorter parent's end its child reads zeroes, whatever lies further down.
    if (offset >= size) break;
    depth = index;
    image.extentAt(offset, Math.min(out.length, size - offset), out);
    if (out.state !== 'unallocated') return depth;
  }
  out.state = 'unallocated';
  return depth;
}

/**
 * The piece of a map that begins at `offset`, at most `length` bytes. It may go on behind its end:
 * a piece is found with bounded work.
 */
export function mapImages(images: readonly DiskImage[], offset: number, length: number): MapExtent {
  const extent: Extent = { state: 'unallocated', length: 0 };
  const depth = findAnswer(images, offset, length, extent);
  const { state } = extent;
  const answer = {
    start: offset,
    length: extent.length,
    depth,
    present: state !== 'unallocated',
    zero: state !== 'data',
    data: state === 'data',
  };
  if (state !== 'data') return answer;
  const image = images[depth]!;
  const place = image.locate?.(offset);
  if (place === undefined) return { ...answer, file: image.path };
  return {
    ...answer,
    length: Math.min(extent.length, place.length),
    ...(place.compressed === true ? { compressed: true as const } : {}),
    file: place.file,
    ...(place.offset === undefined ? {} : { offset: place.offset }),
  };
}
