/** Former names of heads that moved on: they lead to the present one for a while. */
import type { DeltaId } from './delta-id.js';

/** How long a head's former name still leads to the disk that moved on, milliseconds. */
const FORWARD_MS = 60_000;

export class MovedHeads {
  readonly #next = new Map<DeltaId, DeltaId>();

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
}
