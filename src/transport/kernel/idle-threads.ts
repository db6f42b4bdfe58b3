/**
 * Threads that wait in the kernel look at what the main thread left them only with a request; on a
 * mount that nobody uses there is none, and files that nobody needs any more stay open. So each is
 * given one: the kernel wakes waiting readers in turn (native-notes/kernel-channel.md).
 */
import { statfs } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';

/** What comes together is looked at together, milliseconds. */
const SOON_MS = 500;
/** How long an unmount waits for requests of ours; they are answered in less than a millisecond. */
const QUIET_MS = 1000;

export class IdleThreads {
  readonly #mountpoint: () => string;
  readonly #count: () => number;
  #timer: NodeJS.Timeout | undefined;
  #underWay: Promise<void> = Promise.resolve();
  #isOver = false;

  /** @param count how many threads there are now. */
  constructor(mountpoint: () => string, count: () => number) {
    this.#mountpoint = mountpoint;
    this.#count = count;
  }

  wakeSoon(): void {
    if (this.#isOver || this.#timer !== undefined) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#underWay = this.#wakeAll();
    }, SOON_MS);
    this.#timer.unref();
  }

  async #wakeAll(): Promise<void> {
    for (let left = this.#count(); left > 0 && !this.#isOver; left -= 1) {
      // Without privileges, and where somebody unmounted, the next request has to do.
      await statfs(this.#mountpoint()).catch(() => {});
    }
  }

  /** No request of ours is under way when it resolves, and none comes until `goOn`. */
  async stop(): Promise<void> {
    this.#isOver = true;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    await Promise.race([this.#underWay, delay(QUIET_MS, undefined, { ref: false })]);
  }

  goOn(): void {
    this.#isOver = false;
  }
}
