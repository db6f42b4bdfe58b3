/** Entry of the background thread: long jobs on volumes. Those that wait let others in between. */
import { type MessagePort, parentPort } from 'node:worker_threads';
import { invariant } from '../common/assert.js';
import { BUILD_ID } from '../common/build-id.js';
import type { DiffPart } from '../common/disk-diff.js';
import { DiskError, type DiskErrorJson, errnoName } from '../common/errors.js';
import type { JobWork } from '../engine/engine.js';
import { copyVolume } from '../engine/jobs/copy-volume.js';
import { type DiffOrder, diffVolumes } from '../engine/jobs/diff-volumes.js';
import { Pace, servedByOthers } from '../engine/jobs/pace.js';
import { type TidyOrder, type TidyOutcome, tidyDeltas } from '../engine/jobs/tidy-deltas.js';
import type { SharedMemory } from '../engine/shared/shared-memory.js';
import type { BaseNotice } from '../engine/volume/base-table.js';
import { createThreadContext } from '../engine/volume/thread.js';
import type { ThreadContext } from '../engine/volume/volume.js';
import { formatsReady, openBase } from '../formats/base.js';
import type { WriteHooks } from '../formats/write-image.js';
import { hostError } from '../storage/exact-io.js';
import type { ExportJob, ExportOutcome } from '../vm/exchange/exports.js';
import { exportImage } from './export-image.js';
import type { RotMessage } from './io-thread.js';
import type { ThreadLoaded } from './loaded-threads.js';

/** The first message to it. */
export interface BackgroundThreadData {
  readonly memory: SharedMemory;
  readonly thread: number;
  /** Whether reads are checked against checksums. */
  readonly verifyReads: boolean;
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

export interface ExportRequest {
  readonly type: 'export';
  readonly id: number;
  readonly job: ExportJob;
  readonly cancelled: SharedArrayBuffer;
}

export interface DiffRequest {
  readonly type: 'diff';
  readonly id: number;
  readonly order: DiffOrder;
  readonly cancelled: SharedArrayBuffer;
}

export interface TidyRequest extends TidyOrder {
  readonly type: 'tidy';
  readonly id: number;
  /** One Int32: not 0 once the job is cancelled. */
  readonly cancelled: SharedArrayBuffer;
}

export type BackgroundRequest =
  | CopyRequest
  | ExportRequest
  | DiffRequest
  | TidyRequest
  | BaseNotice;

/** What a job came to; each kind of job fills in its own part. */
export interface JobOutcome extends TidyOutcome {
  readonly exported?: ExportOutcome;
  readonly diff?: DiffPart;
}

export type BackgroundAnswer =
  | RotMessage
  | {
      readonly type: 'progress';
      readonly id: number;
      readonly doneBytes: number;
      /** Where the job itself knows. */
      readonly totalBytes?: number;
    }
  | {
      readonly type: 'done';
      readonly id: number;
      readonly outcome: JobOutcome;
      readonly error?: DiskErrorJson;
    };

/** Progress is told at most this often, milliseconds. */
const PROGRESS_MS = 50;

const NOTHING: JobOutcome = { bytes: 0 };

const port = parentPort;
invariant(port !== null, 'the background thread is started by the daemon');
void formatsReady.then(() => {
  port.once('message', (data: BackgroundThreadData) => new Jobs(port, data).start());
  port.postMessage({ type: 'loaded', build: BUILD_ID } satisfies ThreadLoaded);
});

class Jobs {
  readonly #port: MessagePort;
  readonly #context: ThreadContext;

  constructor(main: MessagePort, { memory, thread, verifyReads }: BackgroundThreadData) {
    this.#port = main;
    this.#context = createThreadContext({
      memory,
      thread,
      openBase,
      receive: () => {},
      onRot: verifyReads ? (rot) => this.#answer({ type: 'rot', rot }) : undefined,
    });
  }

  start(): void {
    this.#port.on('message', (request: BackgroundRequest) => this.#take(request));
  }

  #take(request: BackgroundRequest): void {
    const context = this.#context;
    if (request.type === 'base') {
      context.bases.apply(request);
    } else if (request.type === 'copy') {
      void this.#run(request.id, () => this.#copy(request));
    } else if (request.type === 'export') {
      void this.#run(request.id, async () => ({
        ...NOTHING,
        exported: await exportImage(context, request.job, this.#hooksOf(request)),
      }));
    } else if (request.type === 'diff') {
      void this.#run(request.id, async () => ({
        ...NOTHING,
        diff: await diffVolumes(context, request.order, this.#workOf(request)),
      }));
    } else {
      void this.#run(request.id, () => tidyDeltas(request, this.#workOf(request)));
    }
  }

  #answer(message: BackgroundAnswer): void {
    this.#port.postMessage(message);
  }

  async #run(id: number, job: () => Promise<JobOutcome>): Promise<void> {
    try {
      this.#answer({ type: 'done', id, outcome: await job() });
    } catch (error) {
      const failure = failureOf(error);
      // A bug ends the thread, loudly; what the host or the user did is the job's outcome.
      if (failure === undefined) throw error;
      this.#answer({ type: 'done', id, outcome: NOTHING, error: failure.toJSON() });
    }
  }

  async #copy(request: CopyRequest): Promise<JobOutcome> {
    const { source, target } = request;
    await copyVolume(this.#context, { source, target }, this.#workOf(request));
    return NOTHING;
  }

  #served(): number {
    return servedByOthers(this.#context.views, this.#context.thread);
  }

  #workOf({ id, cancelled }: TidyRequest | CopyRequest | DiffRequest): JobWork {
    const stop = new Int32Array(cancelled);
    const tell = this.#teller(id);
    return {
      signal: {
        get aborted() {
          return Atomics.load(stop, 0) !== 0;
        },
      },
      onProgress: (doneBytes, totalBytes) => tell({ doneBytes, totalBytes }),
      served: () => this.#served(),
    };
  }

  #hooksOf({ id, cancelled }: ExportRequest): WriteHooks {
    const stop = new Int32Array(cancelled);
    const tell = this.#teller(id);
    const pace = new Pace({ served: () => this.#served() });
    return {
      cancelled: () => Atomics.load(stop, 0) !== 0,
      onProgress: (doneBytes) => tell({ doneBytes }),
      rest: () => pace.rest(),
    };
  }

  /** Tells progress, but not too often. */
  #teller(id: number): (progress: { doneBytes: number; totalBytes?: number }) => void {
    let told = 0;
    return (progress) => {
      const now = performance.now();
      if (now - told < PROGRESS_MS) return;
      told = now;
      this.#answer({ type: 'progress', id, ...progress });
    };
  }
}

/** @returns undefined for a bug. */
function failureOf(error: unknown): DiskError | undefined {
  if (error instanceof DiskError) return error;
  const errno = errnoName(error);
  // Node.js calls its own complaints so, about arguments and the like.
  if (errno === undefined || errno.startsWith('ERR_')) return undefined;
  return hostError(error instanceof Error ? error.message : 'a call to the host', error);
}
