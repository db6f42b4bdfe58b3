/** An open volume as the disk that an export reads: all that it shows, or what its deltas hold. */
import type { Base } from '../base.js';
import { type ThreadContext, Volume } from './volume.js';

/**
 * @param index row of an open volume that is sealed: it cannot change meanwhile.
 * @param deltasOnly extents are then those of the deltas, `unallocated` where the base answers;
 * what is read is always all that the volume shows.
 */
export function volumeSource(
  context: ThreadContext,
  index: number,
  deltasOnly: boolean,
): Omit<Base, 'close'> {
  const volume = new Volume(context, index);
  return {
    virtualSize: volume.size,
    extentAt: (offset, length, out) =>
      deltasOnly ? volume.deltaExtentAt(offset, length, out) : volume.extentAt(offset, length, out),
    readAt: (target, targetOffset, offset, length) =>
      volume.read(target, targetOffset, offset, length),
  };
}
