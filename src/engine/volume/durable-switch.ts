/**
 * The durable side of heads, on the main thread: commits that do not block it, sealing after a
 * switch.
 */
import { closeSync, fstatSync } from 'node:fs';
import { hostError, orHostError } from '../../storage/exact-io.js';
import { hostCalls } from '../../storage/host-calls.js';
import { openStored } from '../../storage/stored-file.js';
import type { DeltaFiles } from '../delta/delta-files.js';
import { type HeaderCopies, readHeaderFrom, writeHeader } from '../delta/delta-header.js';
import { RECORD_SIZE, RECORDS_OFFSET } from '../delta/delta-layout.js';
import { areSettled, mirrorHeader, NO_EPOCH, readCopies } from '../delta/header-copies.js';
import { repairTuples, scanTuples } from '../delta/tuple-scan.js';
import type { DeltaId } from '../delta-id.js';
import { type SharedViews, VOLUME } from '../shared/shared-memory.js';
import { lockMutexAsync, unlockMutex } from '../shared/shared-mutex.js';
import type { VolumeRow } from '../shared/volume-row.js';
import { publishCommit, recordsSoFar, suspectError } from './commit.js';

/** `flushVolume` for the main thread: the syncs run on the thread pool. */
export async function flushVolumeAsync(views: SharedViews, row: VolumeRow): Promise<void> {
  await withCommitLock(views, row, () => flushLocked(views, row));
}

/** Runs `task` while no flush of the volume does. */
export async function withCommitLock<T>(
  views: SharedViews,
  row: VolumeRow,
  task: () => Promise<T>,
): Promise<T> {
  await lockMutexAsync(views.volumeWords, row.word(VOLUME.commitLock));
  try {
    return await task();
  } finally {
    unlockMutex(views.volumeWords, row.word(VOLUME.commitLock));
  }
}

/** The caller holds the commit lock. */
async function flushLocked(views: SharedViews, row: VolumeRow): Promise<void> {
  if (row.failed) throw suspectError();
  if (!row.takeDirty()) return;
  try {
    const count = recordsSoFar(views, row);
    await hostCalls.syncDataLater(row.headDataFd, 'head.sync-data');
    if (count === row.get(VOLUME.committedCount)) return;
    const header = publishCommit(row, count);
    await hostCalls.syncDataLater(row.headTuplesFd, 'head.sync-tuples');
    mirrorHeader(row.headTuplesFd, header, 'head.mirror');
  } catch (error) {
    row.markFailed();
    throw hostError('cannot make the disk durable', error);
  }
}

/**
 * A head that was just switched away from: its descriptors and counts as they were inside the gate.
 */
export interface RetiredHead {
  readonly dataFd: number;
  readonly tuplesFd: number;
  readonly recordCount: number;
  readonly mappedBlocks: number;
}

/** Makes the data of a retired head durable: to be followed by `sealRetired`. */
export async function syncRetired({ dataFd }: RetiredHead): Promise<void> {
  await hostCalls.syncDataLater(dataFd, 'seal.sync-data');
}

/** Makes the tuples of a retired head durable and marks it sealed. */
export async function sealRetired(head: RetiredHead): Promise<void> {
  const { current } = readHeaderFrom(head.tuplesFd, 'tuple file of a retired head', undefined);
  const next = {
    ...current,
    committedRecords: head.recordCount,
    mappedBlocks: head.mappedBlocks,
    sealed: true,
  };
  const sealed = writeHeader(head.tuplesFd, next, 'seal.header');
  await hostCalls.syncDataLater(head.tuplesFd, 'seal.sync-tuples');
  mirrorHeader(head.tuplesFd, sealed, 'seal.mirror');
}

/**
 * Makes a delta that nobody has open durable, without reading its records unless an earlier process
 * left some uncommitted.
 * @throws DiskError as the host says.
 */
export function settleClosed(files: DeltaFiles, id: DeltaId, sealed: boolean): void {
  orHostError(`cannot make delta ${id} durable`, () => settle(files, id, sealed));
}

function settle(files: DeltaFiles, id: DeltaId, sealed: boolean): void {
  const path = files.tuplesPath(id);
  const tuples = openStored(path, 'r+');
  try {
    const copies = readHeaderFrom(tuples, path, id);
    const { current } = copies;
    files.inherit(id);
    if (current.below.kind === 'delta') settleBelow(files, current.below.id);
    if (current.sealed) {
      repairSealed(tuples, path, copies);
      return;
    }
    const data = openStored(files.dataPath(id, current.dataGeneration), 'r+');
    try {
      hostCalls.syncData(data, 'settle.sync-data');
    } finally {
      closeSync(data);
    }
    const committedEnd = RECORDS_OFFSET + current.committedRecords * RECORD_SIZE;
    const clean = fstatSync(tuples).size === committedEnd && current.cacheEpoch === files.epoch;
    let count = current.committedRecords;
    if (!clean) {
      const scan = scanTuples(tuples, path, copies, files.epoch, () => {});
      repairTuples(tuples, id, scan);
      count = scan.count;
    }
    if (clean && !sealed) return;
    const { epoch } = files;
    const next = { ...current, committedRecords: count, sealed, cacheEpoch: epoch };
    const header = writeHeader(tuples, next, 'settle.header');
    hostCalls.syncData(tuples, 'settle.sync-tuples');
    mirrorHeader(tuples, header, 'settle.mirror');
  } catch (error) {
    files.distrust(id);
    throw error;
  } finally {
    closeSync(tuples);
  }
}

/**
 * A power cut during the sealing may have torn records. That is known from the header copies alone,
 * as long as they differ, and the caller may be about to make them alike.
 */
function repairSealed(tuples: number, path: string, copies: HeaderCopies): void {
  const { id } = copies.current;
  const found = readCopies(tuples, path, id);
  // One copy alone tells nothing: what does not verify may have been durable.
  if (areSettled(found) || found.some(({ header }) => header === undefined)) return;
  const scan = scanTuples(tuples, path, copies, NO_EPOCH, () => {});
  if (scan.torn.length > 0) repairTuples(tuples, id, scan);
}

/**
 * What a delta stands on may have been sealed a moment ago; or not yet, by a process that died
 * right after it had moved the head: what that wrote there is nowhere else.
 */
function settleBelow(files: DeltaFiles, id: DeltaId): void {
  if (files.readHeader(id).current.sealed) files.inherit(id);
  else settle(files, id, true);
}
