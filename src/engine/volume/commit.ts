/**
 * Making a head durable: data first, then the count of records that rest on it, then the tuple
 * file; then the other copy of the header is made to say the same.
 *
 * INVARIANT: the commit lock of the volume is held from before the data sync until after the tuple
 * sync; a head switch holds it too, so a flush never reports success while an older head or the
 * manifest is not durable.
 */
import { DiskError } from '../../common/errors.js';
import { hostError } from '../../storage/exact-io.js';
import { hostCalls } from '../../storage/host-calls.js';
import { readHeaderFrom, writeHeader } from '../delta/delta-header.js';
import type { DeltaHeader } from '../delta/delta-layout.js';
import { mirrorHeader } from '../delta/header-copies.js';
import { type SharedViews, VOLUME } from '../shared/shared-memory.js';
import { lockMutex, unlockMutex } from '../shared/shared-mutex.js';
import type { VolumeRow } from '../shared/volume-row.js';

export function suspectError(): DiskError {
  return new DiskError('failed', 'an earlier flush of this disk failed: its state is suspect', {
    errno: 'EIO',
    hint: 'check the host file system, then close the disk and open it again',
  });
}

/**
 * Flushes on an I/O thread. @throws DiskError EIO once any flush failed: success is never reported
 * after that.
 */
export function flushVolume(views: SharedViews, row: VolumeRow): void {
  lockMutex(views.volumeWords, row.word(VOLUME.commitLock));
  try {
    if (row.failed) throw suspectError();
    if (!row.takeDirty()) return;
    const count = recordsSoFar(views, row);
    try {
      hostCalls.syncData(row.headDataFd, 'head.sync-data');
      if (count !== row.get(VOLUME.committedCount)) {
        const header = publishCommit(row, count);
        hostCalls.syncData(row.headTuplesFd, 'head.sync-tuples');
        mirrorHeader(row.headTuplesFd, header, 'head.mirror');
      }
    } catch (error) {
      row.markFailed();
      throw hostError('cannot make the disk durable', error);
    }
  } finally {
    unlockMutex(views.volumeWords, row.word(VOLUME.commitLock));
  }
}

/** Records whose data is written and whose map entries stand. */
export function recordsSoFar(views: SharedViews, row: VolumeRow): number {
  lockMutex(views.volumeWords, row.word(VOLUME.logLock));
  const count = row.get(VOLUME.recordCount);
  unlockMutex(views.volumeWords, row.word(VOLUME.logLock));
  return count;
}

/** Writes the header that says so many records are durable; the caller syncs the file. */
export function publishCommit(row: VolumeRow, count: number): DeltaHeader {
  const { current } = readHeaderFrom(row.headTuplesFd, 'tuple file of an open head', undefined);
  const mappedBlocks = row.get(VOLUME.mappedBlocks);
  const next = { ...current, committedRecords: count, mappedBlocks };
  const header = writeHeader(row.headTuplesFd, next, 'head.publish');
  row.set(VOLUME.committedCount, count);
  return header;
}
