/**
 * Tells of guests that start and end. They are nobody's children, so somebody has to look; and
 * nobody looks while nobody listens.
 */
import type { NewEvent } from '../control/protocol.js';
import type { RunningGuest } from './guests.js';

const REST_MS = 1000;

export interface GuestWatchOptions {
  /** By the numbers of their VMs. @throws the host's error. */
  readonly running: () => ReadonlyMap<number, RunningGuest>;
  readonly isHeard: () => boolean;
  /** The name of the VM with this number; undefined when there is none any more. */
  readonly nameOf: (vmNumber: number) => string | undefined;
  readonly publish: (event: NewEvent) => void;
  readonly onProblem: (what: string, error: unknown) => void;
}

export class GuestWatch {
  readonly #options: GuestWatchOptions;
  #timer: NodeJS.Timeout | undefined;
  /** By number of the VM; undefined while nobody listens. */
  #known: ReadonlyMap<number, RunningGuest> | undefined;

  constructor(options: GuestWatchOptions) {
    this.#options = options;
  }

  start(): void {
    this.#timer = setInterval(() => this.look(), REST_MS);
    this.#timer.unref();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** Somebody is about to listen: to the first one what runs by now is nothing new. */
  begin(): void {
    if (!this.#options.isHeard()) this.#known = this.#running();
  }

  /** Tells what changed since the last look. */
  look(): void {
    if (!this.#options.isHeard()) {
      this.#known = undefined;
      return;
    }
    const before = this.#known;
    const now = this.#running();
    if (now === undefined) return;
    this.#known = now;
    if (before === undefined) return;
    for (const [number, guest] of before) {
      if (!isSame(guest, now.get(number))) this.#tell(number, guest);
    }
    for (const [number, guest] of now) {
      if (!isSame(guest, before.get(number))) this.#tell(number, guest, true);
    }
  }

  #tell(number: number, { pid }: RunningGuest, isStart = false): void {
    const vm = this.#options.nameOf(number);
    const who = vm === undefined ? 'the guest of a VM that is gone' : `the guest of ${vm}`;
    this.#options.publish({
      event: isStart ? 'guest.started' : 'guest.stopped',
      text: isStart ? `${who} runs, pid ${pid}` : `${who} has ended`,
      ...(vm === undefined ? {} : { vm }),
      pid,
    });
  }

  #running(): ReadonlyMap<number, RunningGuest> | undefined {
    try {
      return this.#options.running();
    } catch (error) {
      this.#options.onProblem('cannot see which guests run', error);
      return undefined;
    }
  }
}

function isSame(one: RunningGuest, other: RunningGuest | undefined): boolean {
  return one.pid === other?.pid && one.started === other.started;
}
