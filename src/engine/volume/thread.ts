/** What any thread sets up before it can serve volumes. */

import { DiskError } from '../../common/errors.js';
import type { OpenBase } from '../base.js';
import { Allowance } from '../shared/allowance.js';
import { NodePool } from '../shared/node-pool.js';
import { PagePool } from '../shared/page-pool.js';
import { RangeLock } from '../shared/range-lock.js';
import {
  type SharedMemory,
  VOLUME,
  VOLUME_WORDS,
  viewSharedMemory,
} from '../shared/shared-memory.js';
import { BaseTable } from './base-table.js';
import { type FoundRot, ReadVerifier } from './read-verifier.js';
import { RunReader } from './run-reader.js';
import { type ThreadContext, Volume } from './volume.js';

export interface ThreadOptions {
  readonly memory: SharedMemory;
  /** Index among all threads that touch volumes, below `memory.threadCount`. */
  readonly thread: number;
  readonly openBase: OpenBase;
  /** Takes in base notices that wait for this thread. */
  readonly receive: (table: BaseTable) => void;
  /** Told of wrong bytes; with it, what is read is checked against its checksums. */
  readonly onRot?: ((rot: FoundRot) => void) | undefined;
}

export function createThreadContext(options: ThreadOptions): ThreadContext {
  const views = viewSharedMemory(options.memory);
  const { onRot } = options;
  const bases: BaseTable = new BaseTable(options.openBase, () => options.receive(bases));
  return {
    views,
    nodes: new NodePool(new PagePool(views), { ...views, self: options.thread }),
    bases,
    allowance: new Allowance(views),
    ranges: new RangeLock(views, options.thread),
    runs: new RunReader(),
    thread: options.thread,
    verifier: onRot === undefined ? undefined : new ReadVerifier(views, onRot),
  };
}

/** Volumes by handle, made on demand and kept: a handle is a row index. */
export function volumesOf(context: ThreadContext): (handle: number) => Volume {
  const volumes: (Volume | undefined)[] = [];
  const { volumes: rows } = context.views;
  return (handle) => {
    const row = handle * VOLUME_WORDS;
    let volume = volumes[handle];
    if (rows[row + VOLUME.incarnation] === volume?.incarnation) return volume!;
    // Nothing is in it: never was, or what was to be opened there again could not be.
    if (rows[row + VOLUME.mapRoot] === 0) throw lostDisk();
    if (volume === undefined) {
      volume = new Volume(context, handle);
      volumes[handle] = volume;
    } else {
      volume.refresh();
    }
    return volume;
  };
}

/** An earlier daemon gave the handle, and this one could not open the disk again. */
function lostDisk(): DiskError {
  return new DiskError('failed', 'this open file has lost its disk; the log says why', {
    errno: 'EIO',
    hint: 'close it and open it again',
  });
}
