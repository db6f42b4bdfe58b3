/**
 * Copying everything that one volume shows into another: the full clone's work, on a background
 * thread.
 */

import { DiskError } from '../common/errors.js';
import { BLOCK_SIZE, formatSize, MiB } from '../common/units.js';
import { FULL_HINT } from '../storage/exact-io.js';
import { DATA } from './chain-map.js';
import type { Extent } from './disk-image.js';
import { DELTA, DELTA_WORDS } from './shared-memory.js';
import { slotsToSegmentEnd } from './slot-space.js';
import { type ThreadContext, Volume } from './volume.js';

const CHUNK = MiB;

export interface CopyHooks {
  /** Bytes handled so far. */
  onProgress(doneBytes: number): void;
  cancelled(): boolean;
}

/**
 * Copies the allocated ranges of `source` (sealed: it cannot change meanwhile) into the empty head
 * `target`. Shares the host's blocks instead where it can. Where the target stands on something,
 * that shows through where nobody holds anything in the source, and is hidden by its zeroes.
 * @throws DiskError `interrupted` when cancelled; ENOSPC, before the first byte is copied where it
 * is known that there is no room for all; others from the host.
 */
export function copyVolume(
  context: ThreadContext,
  volumes: { readonly source: number; readonly target: number },
  hooks: CopyHooks,
): void {
  const source = new Volume(context, volumes.source);
  const target = new Volume(context, volumes.target);
  const buffer = Buffer.alloc(CHUNK);
  const extent: Extent = { state: 'unallocated', length: 0 };
  let offset = 0;
  let copied = 0;
  let canReflink = true;
  let isRoomChecked = false;
  while (offset < source.size) {
    if (hooks.cancelled()) throw new DiskError('interrupted', 'the copy was cancelled');
    source.extentAt(offset, source.size - offset, extent);
    if (extent.state !== 'data') {
      // Stored only where something else could be read.
      if (extent.state === 'zero') target.discard(offset, extent.length);
      offset += extent.length;
      continue;
    }
    const shared = canReflink ? shareRun(context, source, target, offset) : 0;
    if (shared < 0) canReflink = false;
    const length = shared > 0 ? shared : Math.min(extent.length, CHUNK - (offset % BLOCK_SIZE));
    if (shared <= 0) {
      if (!isRoomChecked) checkRoom(context, source, offset, canReflink);
      isRoomChecked = true;
      source.read(buffer, 0, offset, length);
      target.write(buffer, 0, offset, length);
    }
    offset += length;
    copied += length;
    hooks.onProgress(copied);
  }
  target.flush();
}

/** @returns bytes shared, 0 when this run is not in a delta, -1 when the host cannot share. */
function shareRun(context: ThreadContext, source: Volume, target: Volume, offset: number): number {
  if (offset % BLOCK_SIZE !== 0) return 0;
  const block = offset / BLOCK_SIZE;
  const { map, space } = source;
  const limit = Math.floor((source.size - offset) / BLOCK_SIZE);
  if (limit === 0) return 0;
  map.find(block, limit);
  if (map.kind !== DATA) return 0;
  space.resolve(map.address);
  const count = Math.min(map.count, slotsToSegmentEnd(map.address));
  const fd = context.views.deltas[space.delta * DELTA_WORDS + DELTA.dataFd]!;
  const place = { fd, offset: space.slot * BLOCK_SIZE };
  return target.shareBlocks(block, count, place) ? count * BLOCK_SIZE : -1;
}

/**
 * Asks whether there is room for what is still to be copied.
 * @param canReflink what lies in deltas is shared, and takes none.
 * @throws DiskError ENOSPC.
 */
function checkRoom(
  context: ThreadContext,
  source: Volume,
  from: number,
  canReflink: boolean,
): void {
  const { left } = context.allowance;
  if (left === Number.POSITIVE_INFINITY) return;
  const extent: Extent = { state: 'unallocated', length: 0 };
  let needed = 0;
  for (let at = from; at < source.size; at += extent.length) {
    source.deltaExtentAt(at, source.size - at, extent);
    const isInDelta = extent.state === 'data';
    if (extent.state === 'unallocated') source.extentAt(at, extent.length, extent);
    if (extent.state === 'data' && !(isInDelta && canReflink)) needed += extent.length;
  }
  if (needed <= left) return;
  const [wanted, there] = [needed, left].map(formatSize);
  throw new DiskError('failed', `the copy needs ${wanted}; the store has room for ${there}`, {
    errno: 'ENOSPC',
    hint: FULL_HINT,
  });
}
