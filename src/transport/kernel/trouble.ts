/**
 * Reports failed requests to the main thread, at most one a second and thread: a full disk must
 * not flood the log.
 */
import { DiskError } from '../../common/errors.js';
import { errnoOf, isBug } from '../errno.js';
import type { TroubleMessage } from './messages.js';

const QUIET_MS = 1000;

/** Answers that belong to normal work: past the end, no more data, not allowed. */
const EXPECTED = new Set(['EFBIG', 'ENXIO', 'EROFS', 'EPERM', 'EOPNOTSUPP', 'EBADF']);

export class TroubleReporter {
  readonly #threadIndex: number;
  readonly #send: (message: TroubleMessage) => void;
  readonly #now: () => number;
  #lastReport = Number.NEGATIVE_INFINITY;
  #suppressed = 0;

  /** `now` answers milliseconds. */
  constructor(
    threadIndex: number,
    send: (message: TroubleMessage) => void,
    now: () => number = () => performance.now(),
  ) {
    this.#threadIndex = threadIndex;
    this.#send = send;
    this.#now = now;
  }

  /**
   * Tells of an error that a request of kind `opcode` was answered with (0: taking a request
   * failed).
   */
  report(opcode: number, error: unknown): void {
    if (error instanceof DiskError && EXPECTED.has(error.errno ?? '')) return;
    const now = this.#now();
    const bug = isBug(error);
    if (!bug && now - this.#lastReport < QUIET_MS) {
      this.#suppressed += 1;
      return;
    }
    this.#lastReport = now;
    const stack = error instanceof Error ? error.stack : undefined;
    this.#send({
      type: 'trouble',
      threadIndex: this.#threadIndex,
      opcode,
      errno: errnoOf(error),
      message: error instanceof Error ? error.message : String(error),
      bug,
      ...(bug && stack !== undefined ? { stack } : {}),
      suppressed: this.#suppressed,
    });
    this.#suppressed = 0;
  }
}
