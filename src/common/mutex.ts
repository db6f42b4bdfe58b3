/** Locks between asynchronous tasks of the main thread; first come, first served. */

/** Runs one task at a time. A task that fails hands the lock on like any other. */
export class Mutex {
  #last: Promise<unknown> = Promise.resolve();

  /** Waits for its turn, runs `task`, and answers what it answers. */
  run<T>(task: () => Promise<T>): Promise<T> {
    const result = this.#last.then(task);
    // The next task waits for the end of this one, however it ends; its caller gets the error.
    this.#last = result.catch(() => undefined);
    return result;
  }
}

interface Waiter {
  readonly exclusive: boolean;
  readonly start: () => void;
}

/** Many may share it at once; one that excludes the others runs alone. */
export class SharedLock {
  readonly #waiting: Waiter[] = [];
  #sharing = 0;
  #excluded = false;

  shared<T>(task: () => Promise<T>): Promise<T> {
    return this.#run(false, task);
  }

  exclusive<T>(task: () => Promise<T>): Promise<T> {
    return this.#run(true, task);
  }

  async #run<T>(exclusive: boolean, task: () => Promise<T>): Promise<T> {
    await new Promise<void>((start) => {
      this.#waiting.push({ exclusive, start });
      this.#admit();
    });
    try {
      return await task();
    } finally {
      if (exclusive) this.#excluded = false;
      else this.#sharing -= 1;
      this.#admit();
    }
  }

  #admit(): void {
    for (;;) {
      const next = this.#waiting[0];
      if (next === undefined || this.#excluded || (next.exclusive && this.#sharing > 0)) return;
      this.#waiting.shift();
      if (next.exclusive) this.#excluded = true;
      else this.#sharing += 1;
      next.start();
    }
  }
}
