/**
 * The events of one `events` request on their way to a client that may read slowly, or not at all.
 */
import type { EventView } from './events.js';

export interface StreamEnd {
  readonly write: (event: EventView) => void;
  /** Whether the client has so much to read already that it gets no more for now. */
  readonly isFull: () => boolean;
}

/**
 * INVARIANT: keeps no event, only how many were left out; the next thing that the client reads
 * says so.
 */
export class EventStream {
  readonly #end: StreamEnd;
  #lost = 0;

  constructor(end: StreamEnd) {
    this.#end = end;
  }

  send(event: EventView): void {
    if (this.#end.isFull()) {
      this.#lost += 1;
      return;
    }
    this.tellLost();
    this.#end.write(event);
  }

  /** Says how many events were left out, if any were: there is room again, or nothing follows. */
  tellLost(): void {
    const lost = this.#lost;
    if (lost === 0) return;
    this.#lost = 0;
    const text = `${lost} ${lost === 1 ? 'event was' : 'events were'} lost: they were not read`;
    this.#end.write({ time: new Date().toISOString(), event: 'lost', text, lost });
  }
}
