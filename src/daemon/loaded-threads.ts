/**
 * I/O threads that have their program loaded and wait for what to serve. Loading takes far longer
 * than starting to serve, so a spare daemon has that behind it when it takes a mount over.
 */
import { Worker } from 'node:worker_threads';

/** What a loaded thread says first. */
export interface ThreadLoaded {
  readonly type: 'loaded';
}

export class LoadedThreads {
  readonly #waiting: Worker[] = [];
  #made = 0;
  /** Resolves when all of the first ones wait. */
  readonly loaded: Promise<unknown>;

  /** @param count so many are loaded ahead; 0 where perhaps none is needed. */
  constructor(count: number) {
    this.#waiting = Array.from({ length: count }, () => this.#load());
    this.loaded = Promise.all(this.#waiting.map(untilLoaded));
  }

  /** One that nobody else has; it may still be loading, and hears of its work when it has. */
  take(): Worker {
    const worker = this.#waiting.shift() ?? this.#load();
    worker.ref();
    return worker;
  }

  #load(): Worker {
    const worker = new Worker(new URL('../daemon/io-thread.js', import.meta.url), {
      execArgv: [],
      name: `io-${this.#made++}`,
    });
    // One that waits keeps no process.
    worker.unref();
    return worker;
  }
}

/** Rejects for one that cannot be loaded, as the worker's own 'error' says. */
function untilLoaded(worker: Worker): Promise<void> {
  return new Promise((resolve, reject) => {
    worker.once('message', () => {
      worker.off('error', reject);
      resolve();
    });
    worker.once('error', reject);
  });
}
