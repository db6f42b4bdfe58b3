/** Who listens to the events of the store, and the one place that they are all told from. */
import { DiskError } from '../common/errors.js';
import type { CallContext, EventsEnd, NewEvent } from '../control/protocol.js';

/** Others need connections, too. */
const MAX_LISTENERS = 64;

type Tell = CallContext['event'];

export interface HubOptions {
  /** What a listener is to know that was so before it came. */
  readonly standing: () => readonly NewEvent[];
  /** Somebody listens from now on. */
  readonly onListener: () => void;
}

export class EventHub {
  readonly #options: HubOptions;
  readonly #listeners = new Set<Tell>();
  readonly #waiting = new Set<(end: EventsEnd) => void>();
  #end: EventsEnd | undefined;

  constructor(options: HubOptions) {
    this.#options = options;
  }

  get isHeard(): boolean {
    return this.#listeners.size > 0;
  }

  /** For changes that stand. Waits for nobody. */
  publish(event: NewEvent): void {
    for (const tell of this.#listeners) tellNow(tell, event);
  }

  /**
   * Tells a client everything until the daemon ends.
   * @throws DiskError `interrupted` when it is cancelled before, `busy` with too many listeners.
   */
  async listen({ signal, event: tell }: Pick<CallContext, 'signal' | 'event'>): Promise<EventsEnd> {
    if (this.#end !== undefined) return this.#end;
    if (this.#listeners.size >= MAX_LISTENERS) {
      throw new DiskError('busy', `${MAX_LISTENERS} clients listen to events already`, {
        hint: 'end one of them: layerdisk events',
      });
    }
    this.#options.onListener();
    const { pid } = process;
    tellNow(tell, { event: 'listening', text: `listening to the daemon, pid ${pid}`, pid });
    for (const event of this.#options.standing()) tellNow(tell, { ...event, standing: true });
    // A function of its own: one client may listen twice.
    const own: Tell = (event) => tell(event);
    this.#listeners.add(own);
    try {
      return await this.#untilEnd(signal);
    } finally {
      this.#listeners.delete(own);
    }
  }

  #untilEnd(signal: AbortSignal): Promise<EventsEnd> {
    return new Promise((done, fail) => {
      const settle = (): void => {
        this.#waiting.delete(finish);
        signal.removeEventListener('abort', cancel);
      };
      const finish = (end: EventsEnd): void => {
        settle();
        done(end);
      };
      const cancel = (): void => {
        settle();
        fail(new DiskError('interrupted', 'events was cancelled'));
      };
      this.#waiting.add(finish);
      signal.addEventListener('abort', cancel);
      if (signal.aborted) cancel();
    });
  }

  /** The last event, before the control socket closes. */
  end(end: EventsEnd): void {
    if (this.#end !== undefined) return;
    this.#end = end;
    this.publish(
      end === 'restart'
        ? { event: 'daemon.restarting', text: 'the daemon is restarted: the next one takes over' }
        : { event: 'daemon.stopping', text: 'the daemon ends' },
    );
    for (const finish of [...this.#waiting]) finish(end);
  }
}

function tellNow(tell: Tell, event: NewEvent): void {
  const { event: name, text, ...details } = event;
  tell({ time: new Date().toISOString(), event: name, text, ...details });
}
