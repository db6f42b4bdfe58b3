/** Several tasks at once, and one task for several. */

/**
 * Waits until all of these have ended, however they end: nobody uses a file any more that the
 * caller closes or removes next.
 * @returns what they answer. @throws the error of the first in this order that failed.
 */
export async function together<T extends readonly unknown[]>(
  tasks: readonly [...{ [K in keyof T]: Promise<T[K]> }],
): Promise<T> {
  const outcomes = await Promise.allSettled(tasks);
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
  return outcomes.map(
    (outcome) => (outcome as PromiseFulfilledResult<unknown>).value,
  ) as unknown as T;
}

/**
 * One task that many want done after they asked: those who ask while it runs share the next run.
 */
export class SharedRun {
  readonly #task: (why: string) => Promise<void>;
  #running: Promise<void> | undefined;
  #next: Promise<void> | undefined;

  /** @param task is told why by the first who asked for this run. */
  constructor(task: (why: string) => Promise<void>) {
    this.#task = task;
  }

  /** Resolves when a run has ended that began after this call. @throws what that run throws. */
  run(why: string): Promise<void> {
    if (this.#next !== undefined) return this.#next;
    if (this.#running === undefined) return this.#start(why);
    // How the run before ends is told to those who share that one.
    this.#next = this.#running
      .catch(() => undefined)
      .then(() => {
        this.#next = undefined;
        return this.#start(why);
      });
    return this.#next;
  }

  #start(why: string): Promise<void> {
    const run = this.#task(why).finally(() => {
      this.#running = undefined;
    });
    this.#running = run;
    return run;
  }
}
