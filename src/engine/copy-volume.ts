/**
 * Copying everything that one volume shows into another: the full clone's work, on a background
 * thread.
 */

import { DiskError } from '../common/errors.js';
import { BLOCK_SIZE, MiB } from '../common/units.js';
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
 * @throws DiskError `interrupted` when cancelled; ENOSPC and others from the host.
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
