/** Work that is done again and again, with a rest after each time, until it is stopped. */

export class Periodic {
  readonly #restMs: () => number;
  readonly #work: () => Promise<void>;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> = Promise.resolve();
  #stopped = false;

  /**
   * @param restMs asked before each rest where it is a function.
   * @param work must not reject.
   */
  constructor(restMs: number | (() => number), work: () => Promise<void>) {
    this.#restMs = typeof restMs === 'number' ? () => restMs : restMs;
    this.#work = work;
  }

  /** The first time is a rest from now. Does not keep the process alive. */
  start(): void {
    if (this.#stopped) return;
    this.#timer = setTimeout(() => {
      this.#running = this.#work().finally(() => this.start());
    }, this.#restMs());
    this.#timer.unref();
  }

  /** Resolves when the work under way is done; there is no next time. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#running;
  }
}
