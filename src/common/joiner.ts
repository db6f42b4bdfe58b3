/** Making one run of those that continue each other. */

interface Run {
  readonly length: number;
}

/** Holds one run back at a time: it may go on. */
export class Joiner<T extends Run> {
  readonly #continues: (run: T, next: T) => boolean;
  #last: T | undefined;

  /** @param continues whether `next` begins where `run` ends, with the same going on. */
  constructor(continues: (run: T, next: T) => boolean) {
    this.#continues = continues;
  }

  /** Takes the next run in; answers the one before it when that is complete. */
  add(run: T): T | undefined {
    const last = this.#last;
    if (last !== undefined && this.#continues(last, run)) {
      this.#last = { ...last, length: last.length + run.length };
      return undefined;
    }
    this.#last = run;
    return last;
  }

  /** The run that was held back. */
  end(): T | undefined {
    const last = this.#last;
    this.#last = undefined;
    return last;
  }
}
