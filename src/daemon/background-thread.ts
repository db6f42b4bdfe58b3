/** Entry of the background thread: long jobs on volumes, one after the other. */
import { parentPort, workerData } from 'node:worker_threads';
import { invariant } from '../common/assert.js';
import { DiskError, type DiskErrorJson } from '../common/errors.js';
import type { BaseNotice } from '../engine/base-table.js';
import { copyVolume } from '../engine/copy-volume.js';
import type { SharedMemory } from '../engine/shared-memory.js';
import { createThreadContext } from '../engine/thread.js';
import { openBase } from '../formats/base.js';

export interface BackgroundThreadData {
  readonly memory: SharedMemory;
  readonly thread: number;
}

export interface CopyRequest {
  readonly type: 'copy';
  readonly id: number;
  /** Row indexes of open volumes. */
  readonly source: number;
  readonly target: number;
  /** One Int32: not 0 once the job is cancelled. */
  readonly cancelled: SharedArrayBuffer;
}

export type BackgroundRequest = CopyRequest | BaseNotice;

export type BackgroundAnswer =
  | { readonly type: 'progress'; readonly id: number; readonly doneBytes: number }
  | { readonly type: 'done'; readonly id: number; readonly error?: DiskErrorJson };

/** Progress is told at most this often, milliseconds. */
const PROGRESS_MS = 50;

const port = parentPort;
invariant(port !== null, 'the background thread is started by the daemon');
const { memory, thread } = workerData as BackgroundThreadData;
const context = createThreadContext({ memory, thread, openBase, receive: () => {} });

port.on('message', (request: BackgroundRequest) => {
  if (request.type === 'base') context.bases.apply(request);
  else copy(request);
});

function copy({ id, source, target, cancelled }: CopyRequest): void {
  const stop = new Int32Array(cancelled);
  let told = 0;
  const answer = (message: BackgroundAnswer): void => port?.postMessage(message);
  try {
    copyVolume(
      context,
      { source, target },
      {
        cancelled: () => Atomics.load(stop, 0) !== 0,
        onProgress: (doneBytes) => {
          const now = performance.now();
          if (now - told < PROGRESS_MS) return;
          told = now;
          answer({ type: 'progress', id, doneBytes });
        },
      },
    );
    answer({ type: 'done', id });
  } catch (error) {
    // A bug ends the thread, loudly; what the host or the user did is the job's outcome.
    if (!(error instanceof DiskError)) throw error;
    answer({ type: 'done', id, error: error.toJSON() });
  }
}
