/**
 * Threads that have their program loaded and wait for what to do. Loading takes far longer than
 * starting to serve, so a spare daemon has that behind it, for I/O, when it takes a mount over.
 */
import { Worker } from 'node:worker_threads';
import { BUILD_ID } from '../common/build-id.js';
import { DiskError } from '../common/errors.js';

/** What a loaded thread says first. */
export interface ThreadLoaded {
  readonly type: 'loaded';
  readonly build: string;
}

/** Programs of threads. */
type ThreadProgram = 'io-thread' | 'background-thread';

/** A thread that loads its program; until it is given work it keeps no process. */
export function loadThread(program: ThreadProgram, name: string): Worker {
  const url = new URL(`../daemon/${program}.js`, import.meta.url);
  const worker = new Worker(url, { execArgv: [], name });
  worker.unref();
  return worker;
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
    return loadThread('io-thread', `io-${this.#made++}`);
  }
}

/**
 * Only a thread of this very build may be given shared memory: another one reads its words in
 * another way.
 * @throws DiskError `failed` for one of another build; Error for one that cannot be loaded.
 */
export function untilLoaded(worker: Worker): Promise<void> {
  return new Promise((resolve, reject) => {
    // A file that is just being written may end without a word.
    const ended = (): void => reject(new Error('its program ended at once'));
    worker.once('message', (word: Partial<ThreadLoaded>) => {
      worker.off('error', reject);
      worker.off('exit', ended);
      if (word.build === BUILD_ID) resolve();
      else reject(otherBuild());
    });
    worker.once('error', reject);
    worker.once('exit', ended);
  });
}

function otherBuild(): DiskError {
  return new DiskError('failed', 'the program of this daemon was replaced while it ran', {
    hint: 'layerdisk daemon restart',
  });
}
