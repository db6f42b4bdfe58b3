/**
 * Heads that move: their former names lead to the present one for a while, and those of closed
 * disks are not opened while they move.
 */
import type { DeltaId } from '../delta-id.js';

/** How long a head's former name still leads to the disk that moved on, milliseconds. */
export const FORWARD_MS = 60_000;

export class MovedHeads {
  readonly #next = new Map<DeltaId, DeltaId>();
  /** Deltas of moves under way; each resolves when its move is over. */
  readonly #moving = new Map<DeltaId, Promise<void>>();

  /** The present head of a disk whose head was `top` when its name was looked up. */
  follow(top: DeltaId): DeltaId {
    let id = top;
    for (let next = this.#next.get(id); next !== undefined; next = this.#next.get(id)) id = next;
    return id;
  }

  moved(from: DeltaId, to: DeltaId): void {
    this.#next.set(from, to);
    setTimeout(() => this.#next.delete(from), FORWARD_MS).unref();
  }

  /**
   * Says that these deltas, former and later heads, are about to change places.
   * @returns what says that it is over; must be called.
   */
  begin(ids: readonly DeltaId[]): () => void {
    let resolve: () => void = () => undefined;
    const over = new Promise<void>((done) => {
      resolve = done;
    });
    for (const id of ids) this.#moving.set(id, over);
    return () => {
      for (const id of ids) this.#moving.delete(id);
      resolve();
    };
  }

  /** Resolves when a move is over that this delta is part of; undefined without one. */
  moving(id: DeltaId): Promise<void> | undefined {
    return this.#moving.get(id);
  }
}
