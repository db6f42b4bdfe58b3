/**
 * The pace of long jobs on the background thread: they rest, so that disks in use are not hurt.
 * While nobody uses a disk they go on at full speed.
 */
import { setTimeout as delay, setImmediate as nextTurn } from 'node:timers/promises';
import { DiskError } from '../../common/errors.js';
import type { JobWork } from '../engine.js';
import { type SharedViews, THREAD, THREAD_WORDS } from '../shared/shared-memory.js';

/** Rests come at most this often, milliseconds; while disks are in use, and while they are not. */
const BUSY_STRETCH_MS = 1;
const STRETCH_MS = 5;
/** The part of the time that a job takes while disks are in use: by many requests, and by few. */
const BUSY_SHARE = 1 / 20;
const TRICKLE_SHARE = 1 / 2;
/** The same of a job that is pressing, by many. */
const PRESSING_SHARE = 1 / 4;
/** How long after its last request a disk counts as in use, milliseconds. */
const IN_USE_MS = 200;
/** Few are at most so many in that time: a guest that idles. */
const TRICKLE = 40;
/** The longest rest, milliseconds: a cancelled job is still to end at once. */
const LONGEST_REST_MS = 250;

/** How many requests all threads but this one have served, modulo 2^32. */
export function servedByOthers({ threads, threadCount }: SharedViews, own: number): number {
  let sum = 0;
  for (let thread = 0; thread < threadCount; thread += 1) {
    if (thread !== own) sum = (sum + threads[thread * THREAD_WORDS + THREAD.served]!) | 0;
  }
  return sum;
}

export class Pace {
  readonly #work: JobWork;
  readonly #share: number;
  #since = performance.now();
  #served: number;
  #inUseUntil = 0;
  /** Requests lately: what was seen, halved every IN_USE_MS. */
  #recent = 0;
  #halvedAt = 0;

  /**
   * @param share the part of the time that the job may take even while no disk is in use: what it
   * measures includes waiting for a busy host disk, so it steps back when others need that.
   */
  constructor(work: JobWork, share = 1) {
    this.#work = work;
    this.#share = share;
    this.#served = this.#countServed();
  }

  /** Called between small pieces of work. @throws DiskError `interrupted` when cancelled. */
  async rest(): Promise<void> {
    if (this.#work.signal?.aborted === true) {
      throw new DiskError('interrupted', 'the work was cancelled');
    }
    const now = performance.now();
    const busy = now - this.#since;
    if (busy < BUSY_STRETCH_MS) return;
    const others = this.#shareBeside(now);
    if (others === 1 && busy < STRETCH_MS) return;
    const share = Math.min(this.#share, others);
    if (share < 1) await delay(Math.min(busy * (1 / share - 1), LONGEST_REST_MS));
    else await nextTurn();
    this.#since = performance.now();
  }

  #countServed(): number {
    return this.#work.served?.() ?? 0;
  }

  /** The part of the time that whoever uses disks now leaves to the job. */
  #shareBeside(now: number): number {
    const served = this.#countServed();
    const more = (served - this.#served) >>> 0;
    this.#served = served;
    if (now - this.#halvedAt > IN_USE_MS) {
      this.#recent /= 2;
      this.#halvedAt = now;
    }
    if (more > 0) {
      this.#recent += more;
      this.#inUseUntil = now + IN_USE_MS;
    }
    if (now >= this.#inUseUntil) {
      this.#recent = 0;
      return 1;
    }
    if (this.#recent <= TRICKLE) return TRICKLE_SHARE;
    return this.#work.pressing === true ? PRESSING_SHARE : BUSY_SHARE;
  }
}
