/** Entry of the background thread: long jobs on volumes, one after the other. */
import { parentPort, workerData } from 'node:worker_threads';
import { invariant } from '../common/assert.js';
import { DiskError, type DiskErrorJson } from '../common/errors.js';
import type { BaseNotice } from '../engine/base-table.js';
import { copyVolume } from '../engine/copy-volume.js';
import { DeltaFiles } from '../engine/delta-files.js';
import type { ReclaimOrder } from '../engine/local-engine.js';
import { reclaimDelta } from '../engine/reclaim.js';
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

export interface ReclaimRequest extends ReclaimOrder {
  readonly type: 'reclaim';
  readonly id: number;
}

export type BackgroundRequest = CopyRequest | ReclaimRequest | BaseNotice;

export type BackgroundAnswer =
  | { readonly type: 'progress'; readonly id: number; readonly doneBytes: number }
  | {
      readonly type: 'done';
      readonly id: number;
      /** What the job answered: bytes given back by `reclaim`. */
      readonly value: number;
      readonly error?: DiskErrorJson;
    };

/** Progress is told at most this often, milliseconds. */
const PROGRESS_MS = 50;

const port = parentPort;
invariant(port !== null, 'the background thread is started by the daemon');
const { memory, thread } = workerData as BackgroundThreadData;
const context = createThreadContext({ memory, thread, openBase, receive: () => {} });

port.on('message', (request: BackgroundRequest) => {
  if (request.type === 'base') {
    context.bases.apply(request);
  } else if (request.type === 'copy') {
    run(request.id, () => copy(request));
  } else {
    const { id, folder, epoch, job } = request;
    run(id, () => reclaimDelta(new DeltaFiles(folder, epoch), job));
  }
});

function answer(message: BackgroundAnswer): void {
  port?.postMessage(message);
}

function run(id: number, job: () => number): void {
  try {
    answer({ type: 'done', id, value: job() });
  } catch (error) {
    // A bug ends the thread, loudly; what the host or the user did is the job's outcome.
    if (!(error instanceof DiskError)) throw error;
    answer({ type: 'done', id, value: 0, error: error.toJSON() });
  }
}

function copy({ id, source, target, cancelled }: CopyRequest): number {
  const stop = new Int32Array(cancelled);
  let told = 0;
  let copied = 0;
  copyVolume(
    context,
    { source, target },
    {
      cancelled: () => Atomics.load(stop, 0) !== 0,
      onProgress: (doneBytes) => {
        copied = doneBytes;
        const now = performance.now();
        if (now - told < PROGRESS_MS) return;
        told = now;
        answer({ type: 'progress', id, doneBytes });
      },
    },
  );
  return copied;
}
