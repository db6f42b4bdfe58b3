/**
 * Entry of an I/O thread: waits until it is told what to serve, then serves requests of the kernel
 * channel on the volumes of the shared engine.
 */
import { type MessagePort, parentPort, receiveMessageOnPort } from 'node:worker_threads';
import { invariant } from '../common/assert.js';
import { BUILD_ID } from '../common/build-id.js';
import type { SharedMemory } from '../engine/shared/shared-memory.js';
import type { BaseNotice, BaseTable } from '../engine/volume/base-table.js';
import type { FoundRot } from '../engine/volume/read-verifier.js';
import { createThreadContext, volumesOf } from '../engine/volume/thread.js';
import { formatsReady, openBase } from '../formats/base.js';
import {
  type ChannelThreadSetup,
  serveKernelChannel,
  type ThreadEnd,
} from '../transport/kernel/thread.js';
import type { ThreadLoaded } from './loaded-threads.js';

export interface IoThreadData {
  readonly setup: ChannelThreadSetup;
  readonly memory: SharedMemory;
  /** Index among all threads that touch volumes. */
  readonly thread: number;
  /**
   * Base notices arrive here; the thread blocks in the kernel, so it looks when it meets a new
   * base, and with a request when `published` changed: one that nobody uses any more is closed.
   */
  readonly notices: MessagePort;
  /** One word of shared memory: how many notices there were. */
  readonly published: Int32Array;
  /** Whether reads are checked against checksums. */
  readonly verifyReads: boolean;
}

/** Wrong bytes on the host's disk. */
export interface RotMessage {
  readonly type: 'rot';
  readonly rot: FoundRot;
}

/** The last message of a thread. */
export interface ThreadEnded {
  readonly type: 'ended';
  readonly end: ThreadEnd;
}

/** The notices for this thread. */
class Notices {
  readonly #port: MessagePort;
  readonly #published: Int32Array;
  #received = 0;

  constructor({ notices, published }: IoThreadData) {
    this.#port = notices;
    this.#published = published;
  }

  /** Asked with each request, so by an ordinary read: the next one sees what this one missed. */
  get areWaiting(): boolean {
    return this.#published[0] !== this.#received;
  }

  receive(table: BaseTable): void {
    // Before the look, so that what comes meanwhile is looked for once more.
    this.#received = Atomics.load(this.#published, 0);
    for (let next = receiveMessageOnPort(this.#port); next !== undefined; ) {
      table.apply(next.message as BaseNotice);
      next = receiveMessageOnPort(this.#port);
    }
  }

  close(): void {
    this.#port.close();
  }
}

const port = parentPort;
invariant(port !== null, 'an I/O thread is started by the daemon');
void formatsReady.then(() => {
  port.once('message', (work: IoThreadData) => serve(port, work));
  port.postMessage({ type: 'loaded', build: BUILD_ID } satisfies ThreadLoaded);
});

/** Returns when the mount is gone. */
function serve(main: MessagePort, work: IoThreadData) {
  const { setup, memory, thread, verifyReads } = work;
  const notices = new Notices(work);
  const context = createThreadContext({
    memory,
    thread,
    openBase,
    onRot: verifyReads
      ? (rot) => main.postMessage({ type: 'rot', rot } satisfies RotMessage)
      : undefined,
    receive: (table) => notices.receive(table),
  });
  const volumeOf = volumesOf(context);
  const end = serveKernelChannel({
    ...setup,
    deviceOf: (handle) => {
      if (notices.areWaiting) context.bases.settle();
      return volumeOf(handle);
    },
    forward: (message) => {
      if (notices.areWaiting) context.bases.settle();
      main.postMessage(message);
    },
  });
  context.bases.close();
  notices.close();
  main.postMessage({ type: 'ended', end } satisfies ThreadEnded);
}
