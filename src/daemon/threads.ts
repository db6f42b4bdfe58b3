/**
 * The daemon's threads as the main thread sees them: I/O threads for the kernel channel, one for
 * long jobs.
 */
import { MessageChannel, type MessagePort, type Worker } from 'node:worker_threads';
import { invariant } from '../common/assert.js';
import { DiskError } from '../common/errors.js';
import type { Work } from '../engine/jobs/health.js';
import type { TidyOrder, TidyOutcome } from '../engine/jobs/tidy-deltas.js';
import type { CopyJob } from '../engine/opening/volumes-options.js';
import type { SharedMemory } from '../engine/shared/shared-memory.js';
import type { BaseNotice } from '../engine/volume/base-table.js';
import type { FoundRot } from '../engine/volume/read-verifier.js';
import type { IoThreads } from '../transport/kernel/channel.js';
import type { ChannelMessage } from '../transport/kernel/messages.js';
import type { ChannelThreadSetup, ThreadEnd } from '../transport/kernel/thread.js';
import type { RunDiff } from '../vm/diffs.js';
import type { RunExport } from '../vm/exchange/exports.js';
import type {
  BackgroundAnswer,
  BackgroundRequest,
  BackgroundThreadData,
  JobOutcome,
} from './background-thread.js';
import type { IoThreadData, RotMessage, ThreadEnded } from './io-thread.js';
import {
  type LoadedThreads,
  loadThread,
  type ThreadLoaded,
  untilLoaded,
} from './loaded-threads.js';

/** Threads that touch volumes besides the I/O threads: the main thread and the background one. */
export const OTHER_THREADS = 2;
const BACKGROUND_INDEX = 1;

interface Job {
  readonly onProgress: (doneBytes: number, totalBytes: number) => void;
  readonly done: (outcome: JobOutcome) => void;
  readonly fail: (error: unknown) => void;
}

export interface ThreadsParts {
  /** Where I/O threads are taken from. */
  readonly loaded: LoadedThreads;
  readonly memory: () => SharedMemory;
  readonly verifyReads: boolean;
  readonly onBug: (what: string, error: unknown) => void;
  /** Told of wrong bytes that a thread read. */
  readonly onRot: (rot: FoundRot) => void;
}

export class DaemonThreads implements IoThreads {
  readonly #parts: ThreadsParts;
  readonly #notices = new Map<number, MessagePort>();
  /** See `IoThreadData.published`. */
  readonly #published = new Int32Array(new SharedArrayBuffer(4));
  /** Bases that are open, for threads that start later. */
  readonly #bases = new Map<number, BaseNotice>();
  /** Loaded at the first job. */
  #background: Promise<Worker> | undefined;
  /** It, once it may be given shared memory. */
  #atWork: Worker | undefined;
  readonly #jobs = new Map<number, Job>();
  #nextJob = 1;

  constructor(parts: ThreadsParts) {
    this.#parts = parts;
  }

  start(
    setup: ChannelThreadSetup,
    receive: (message: ChannelMessage) => void,
  ): { readonly ended: Promise<ThreadEnd> } {
    const { port1, port2 } = new MessageChannel();
    port1.unref();
    for (const notice of this.#bases.values()) port1.postMessage(notice);
    this.#notices.set(setup.threadIndex, port1);
    const worker = this.#parts.loaded.take();
    worker.postMessage(this.#ioThreadData(setup, port2), [port2]);
    const ended = new Promise<ThreadEnd>((resolve) => {
      worker.on('message', (message: ChannelMessage | ThreadLoaded | ThreadEnded | RotMessage) => {
        if (message.type === 'loaded') return;
        if (message.type === 'ended') resolve(message.end);
        else if (message.type === 'rot') this.#parts.onRot(message.rot);
        else receive(message);
      });
      worker.on('error', (error) => this.#parts.onBug(`I/O thread ${setup.threadIndex}`, error));
      worker.on('exit', () => {
        port1.close();
        resolve('failed');
      });
    });
    return { ended };
  }

  #ioThreadData(setup: ChannelThreadSetup, notices: MessagePort): IoThreadData {
    const shared = this.#workerData(OTHER_THREADS + setup.threadIndex);
    return { setup, ...shared, notices, published: this.#published };
  }

  #workerData(thread: number): BackgroundThreadData {
    return { memory: this.#parts.memory(), thread, verifyReads: this.#parts.verifyReads };
  }

  /** Passes a notice to every thread, now or when it starts. */
  publishBase(notice: BaseNotice): void {
    if (notice.spec === undefined) this.#bases.delete(notice.index);
    else this.#bases.set(notice.index, notice);
    for (const port of this.#notices.values()) port.postMessage(notice);
    Atomics.add(this.#published, 0, 1);
    this.#atWork?.postMessage(notice);
  }

  /** Copies one volume into another on the background thread. */
  async runCopy({ source, target, signal, onProgress }: CopyJob): Promise<void> {
    const request = { type: 'copy', source, target } as const;
    await this.#run((id, cancelled) => ({ ...request, id, cancelled }), { signal, onProgress });
  }

  /** Writes a volume into an image file on the background thread. */
  readonly runExport: RunExport = async (job, work) => {
    const request = { type: 'export', job } as const;
    const { exported } = await this.#run((id, cancelled) => ({ ...request, id, cancelled }), work);
    invariant(exported !== undefined, 'an export answers what it made');
    return exported;
  };

  /** Compares two volumes on the background thread. */
  readonly runDiff: RunDiff = async (order, work) => {
    const request = { type: 'diff', order } as const;
    const { diff } = await this.#run((id, cancelled) => ({ ...request, id, cancelled }), work);
    invariant(diff !== undefined, 'a comparison answers what differs');
    return diff;
  };

  /** Reclaims, merges, sums or checks on the background thread. */
  async runReclaim(order: TidyOrder, work: Work = {}): Promise<TidyOutcome> {
    return await this.#run((id, cancelled) => ({ type: 'tidy', id, cancelled, ...order }), work);
  }

  async #run(
    request: (id: number, cancelled: SharedArrayBuffer) => BackgroundRequest,
    { signal, onProgress = () => undefined }: Work,
  ): Promise<JobOutcome> {
    const id = this.#nextJob++;
    const cancelled = new SharedArrayBuffer(4);
    const cancel = (): void => {
      Atomics.store(new Int32Array(cancelled), 0, 1);
    };
    if (signal?.aborted === true) cancel();
    signal?.addEventListener('abort', cancel, { once: true });
    try {
      this.#background ??= this.#loadBackground();
      const worker = await this.#background;
      return await new Promise<JobOutcome>((done, fail) => {
        this.#jobs.set(id, { onProgress, done, fail });
        worker.postMessage(request(id, cancelled));
      });
    } finally {
      signal?.removeEventListener('abort', cancel);
      this.#jobs.delete(id);
    }
  }

  /**
   * @throws DiskError when its program is gone or another one by now, as after an upgrade, or the
   * host has no room for one more thread: that is the job's failure, and no reason to die.
   */
  async #loadBackground(): Promise<Worker> {
    let worker: Worker | undefined;
    try {
      worker = loadThread('background-thread', 'background');
      await untilLoaded(worker);
    } catch (error) {
      this.#background = undefined;
      await worker?.terminate();
      throw cannotLoad(error);
    }
    worker.on('message', (answer: BackgroundAnswer) => this.#answered(answer));
    worker.on('error', (error) => this.#parts.onBug('background thread', error));
    worker.on('exit', () => this.#backgroundEnded());
    worker.postMessage(this.#workerData(BACKGROUND_INDEX));
    for (const notice of this.#bases.values()) worker.postMessage(notice);
    this.#atWork = worker;
    return worker;
  }

  #answered(answer: BackgroundAnswer): void {
    if (answer.type === 'rot') {
      this.#parts.onRot(answer.rot);
      return;
    }
    const job = this.#jobs.get(answer.id);
    if (answer.type === 'progress') job?.onProgress(answer.doneBytes, answer.totalBytes ?? 0);
    else if (answer.error === undefined) job?.done(answer.outcome);
    else job?.fail(DiskError.fromJSON(answer.error));
  }

  #backgroundEnded(): void {
    this.#background = this.#atWork = undefined;
    const error = new DiskError('failed', 'the background thread died; see the log');
    for (const job of this.#jobs.values()) job.fail(error);
  }

  /** Ends the background thread. I/O threads end by themselves when their mount is gone. */
  async stop(): Promise<void> {
    const worker = await this.#background?.catch(() => undefined);
    await worker?.terminate();
  }
}

function cannotLoad(error: unknown): DiskError {
  if (error instanceof DiskError) return error;
  const [reason] = (error instanceof Error ? error.message : String(error)).split('\n');
  return new DiskError('failed', `cannot start the thread for long jobs: ${reason}`, {
    hint: 'if layerdisk was removed or replaced meanwhile: layerdisk daemon restart',
    cause: error,
  });
}
