/**
 * Entry of an I/O thread: waits until it is told what to serve, then serves requests of the kernel
 * channel on the volumes of the shared engine.
 */
import { type MessagePort, parentPort, receiveMessageOnPort } from 'node:worker_threads';
import { invariant } from '../common/assert.js';
import type { BaseNotice } from '../engine/base-table.js';
import type { FoundRot } from '../engine/read-verifier.js';
import type { SharedMemory } from '../engine/shared-memory.js';
import { createThreadContext, volumesOf } from '../engine/thread.js';
import { openBase } from '../formats/base.js';
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
   * Base notices arrive here; the thread blocks in the kernel, so it looks only when it meets a new
   * base.
   */
  readonly notices: MessagePort;
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

const port = parentPort;
invariant(port !== null, 'an I/O thread is started by the daemon');
port.once('message', (work: IoThreadData) => serve(port, work));
port.postMessage({ type: 'loaded' } satisfies ThreadLoaded);

/** Returns when the mount is gone. */
function serve(main: MessagePort, { setup, memory, thread, notices, verifyReads }: IoThreadData) {
  const context = createThreadContext({
    memory,
    thread,
    openBase,
    onRot: verifyReads
      ? (rot) => main.postMessage({ type: 'rot', rot } satisfies RotMessage)
      : undefined,
    receive: (table) => {
      for (let next = receiveMessageOnPort(notices); next !== undefined; ) {
        table.apply(next.message as BaseNotice);
        next = receiveMessageOnPort(notices);
      }
    },
  });
  const end = serveKernelChannel({
    ...setup,
    deviceOf: volumesOf(context),
    forward: (message) => main.postMessage(message),
  });
  context.bases.close();
  notices.close();
  main.postMessage({ type: 'ended', end } satisfies ThreadEnded);
}
