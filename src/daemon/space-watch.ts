/**
 * Watches the room in the store's file system: warns before it is gone, and lets threads take new
 * blocks only down to the reserve, which stays for what must go on when the store is full:
 * flushes, deletes, manifests.
 */
import { Periodic } from '../common/periodic.js';
import { formatSize, GiB, MiB } from '../common/units.js';
import type { SpaceState } from '../control/protocol.js';
import type { Allowance } from '../engine/shared/allowance.js';
import { freeSpace } from '../storage/free-space.js';
import type { HeldWrites } from '../transport/transport.js';
import type { Room, StoreRoom } from '../vm/room.js';
import type { Logger } from './logger.js';
import type { SpaceFacts } from './warnings.js';

/** Rests between two looks, milliseconds. */
const LONGEST_REST_MS = 2000;
const SHORT_REST_MS = 250;
/** When writes are refused or wait: they are to go on soon after room was made. */
const SHORTEST_REST_MS = 100;
/** No host writes faster: what is left lasts until the next look. */
const BYTES_PER_MS = 16 * MiB;

/** How often garbage is looked for while somebody needs room: discards make some, too. */
const COLLECT_MS = 1000;

/** The largest request of a guest: with less than that left some are refused. */
const LARGEST_REQUEST = MiB;
/** A state ends only when so much more is free than where it began. */
const MARGIN = 1.1;

export interface Marks {
  /** Bytes that new blocks of guests never take; 0: none. */
  readonly reserve: number;
  /** Bytes below which there is a warning. */
  readonly warnBelow: number;
}

/**
 * Where the marks lie in a file system of `total` bytes.
 *
 * Reserve: 1 %, at most 256 MiB. Warning: 5 %, at least 2 GiB and at most 32 GiB, but never more
 * than 10 % and never less than twice the reserve.
 * @param reserve as asked for.
 */
export function marksFor(total: number, reserve?: number): Marks {
  const kept = reserve ?? Math.floor(Math.min(total / 100, 256 * MiB));
  const usual = Math.min(Math.max(total / 20, 2 * GiB), 32 * GiB, total / 10);
  return { reserve: kept, warnBelow: Math.floor(Math.max(usual, 2 * kept)) };
}

/** The state that follows on `before`. */
export function stateAfter(before: SpaceState, free: number, marks: Marks): SpaceState {
  const full = marks.reserve + LARGEST_REQUEST;
  if (free < (before === 'full' ? full * MARGIN : full)) return 'full';
  return free < (before === 'plenty' ? marks.warnBelow : marks.warnBelow * MARGIN)
    ? 'low'
    : 'plenty';
}

export interface SpaceWatchOptions {
  readonly store: string;
  /** Bytes; undefined: the usual part of the file system. */
  readonly reserve: number | undefined;
  readonly allowance: Allowance;
  readonly log: Logger;
  /**
   * There is little room since a moment ago, or there is none still: what can be removed should be.
   */
  readonly onShort: () => void;
  /** Told of every state that begins; `facts` say how much there is. */
  readonly onState?: (state: SpaceState, facts: SpaceFacts) => void;
}

export class SpaceWatch implements StoreRoom {
  readonly #options: SpaceWatchOptions;
  readonly #looking = new Periodic(
    () => this.#restMs(),
    () => this.#lookAgain(),
  );
  #state: SpaceState = 'plenty';
  #free = 0;
  #total = 0;
  #marks: Marks = { reserve: 0, warnBelow: 0 };
  #isBlind = false;
  #lastCollection = 0;
  #held: HeldWrites | undefined;

  /** Looks at once: no write is let through before. @throws DiskError as `look`. */
  constructor(options: SpaceWatchOptions) {
    this.#options = options;
    this.look();
  }

  /** @param held writes that are to go on when there is room. */
  start(held?: HeldWrites): void {
    this.#held = held;
    this.#looking.start();
  }

  async stop(): Promise<void> {
    await this.#looking.stop();
  }

  get state(): SpaceState {
    return this.#state;
  }

  get isShort(): boolean {
    return this.#state !== 'plenty';
  }

  get isUrgent(): boolean {
    return this.#state === 'full' || this.waitingWrites > 0;
  }

  get waitingWrites(): number {
    return this.#held?.writes ?? 0;
  }

  get waitingBytes(): number {
    return this.#held?.bytes ?? 0;
  }

  /** Whether a write that there is no room for waits instead of being refused. */
  get isHolding(): boolean {
    return this.#held !== undefined;
  }

  /** As of the last look. */
  get facts(): Marks & { readonly free: number; readonly total: number } {
    return { ...this.#marks, free: this.#free, total: this.#total };
  }

  /** @throws DiskError when the host does not say. */
  look(): Room {
    const { store, reserve, allowance } = this.#options;
    // The file system may have been enlarged since.
    const measure = (): number => {
      const { total, free } = freeSpace(store);
      this.#total = total;
      this.#free = free;
      return free;
    };
    measure();
    this.#marks = marksFor(this.#total, reserve);
    allowance.publish(measure, this.#marks.reserve);
    this.#enter(stateAfter(this.#state, this.#free, this.#marks));
    this.#collect();
    return { free: this.#free, reserve: this.#marks.reserve };
  }

  #collect(): void {
    const now = performance.now();
    if (!this.isUrgent || now - this.#lastCollection < COLLECT_MS) return;
    this.#lastCollection = now;
    this.#options.onShort();
  }

  async #lookAgain(): Promise<void> {
    try {
      this.look();
      this.#isBlind = false;
    } catch (error) {
      // What was allowed last is used up, and no more: the safe side.
      if (!this.#isBlind) this.#options.log.error('cannot see how much room there is', { error });
      this.#isBlind = true;
    }
    if (this.waitingWrites > 0) await this.#held?.retry(() => this.#options.allowance.left);
  }

  #restMs(): number {
    const least = this.isUrgent ? SHORTEST_REST_MS : SHORT_REST_MS;
    const lasts = this.#options.allowance.left / BYTES_PER_MS;
    return Math.min(LONGEST_REST_MS, Math.max(least, lasts));
  }

  #enter(state: SpaceState): void {
    const before = this.#state;
    if (state === before) return;
    this.#state = state;
    const { log, onShort, onState } = this.#options;
    const { reserve, warnBelow } = this.#marks;
    const facts = { free: this.#free, total: this.#total, reserve, warnBelow };
    const left = `${formatSize(this.#free)} of ${formatSize(this.#total)} free`;
    if (state === 'full') {
      const what = this.isHolding ? 'wait' : 'are refused';
      const refused = reserve > 0 ? `: writes that need new space ${what}` : '';
      log.warn(`the store's file system is full, ${left}${refused}`, facts);
    } else if (state === 'low' && before === 'plenty') {
      log.warn(`the store's file system runs full, ${left}`, facts);
    } else {
      log.info(`the store's file system has room again, ${left}`, facts);
    }
    onState?.(state, facts);
    if (state !== 'plenty') onShort();
  }
}
