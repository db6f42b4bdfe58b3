/** Where the events of a daemon come together: who listens, and what no command brought about. */
import type { EventsEnd, NewEvent, SpaceState } from '../control/protocol.js';
import type { VmService } from '../vm/vm-service.js';
import { EventHub } from './event-hub.js';
import { GuestWatch } from './guest-watch.js';
import type { Guests } from './guests.js';
import { type Logger, logOnce } from './logger.js';
import type { SpaceWatch } from './space-watch.js';
import { damagedVmEvent, damageEvent, type SpaceFacts, spaceEvent } from './warnings.js';

/** Parts that are made later, and report here from the start. */
export interface EventSources {
  readonly guests: () => Guests;
  readonly service: () => VmService;
  readonly space: () => SpaceWatch;
  readonly log: Logger;
}

export class StoreEvents {
  readonly hub: EventHub;
  readonly guestWatch: GuestWatch;
  readonly onProblem: (what: string, error: unknown) => void;
  readonly #sources: EventSources;

  constructor(sources: EventSources) {
    const { guests, service, log } = sources;
    this.#sources = sources;
    this.onProblem = logOnce(log);
    this.hub = new EventHub({
      standing: () => this.#standing(),
      onListener: () => this.guestWatch.begin(),
    });
    this.guestWatch = new GuestWatch({
      running: () => guests().running(),
      isHeard: () => this.hub.isHeard,
      nameOf: (number) =>
        service()
          .list()
          .find((each) => each.number === number)?.name,
      publish: (event) => this.hub.publish(event),
      onProblem: this.onProblem,
    });
  }

  #standing(): NewEvent[] {
    const { state, facts } = this.#sources.space();
    const damaged = this.#sources.service().damaged().map(damagedVmEvent);
    return state === 'plenty' ? damaged : [...damaged, spaceEvent(state, facts)];
  }

  spaceChanged(state: SpaceState, facts: SpaceFacts): void {
    this.hub.publish(spaceEvent(state, facts));
  }

  /** What failed in the background: into the log, and told where it is damage. */
  failed(what: string, error: unknown): void {
    this.#sources.log.error(what, { error });
    const event = damageEvent(error);
    if (event !== undefined) this.hub.publish(event);
  }

  start(): void {
    this.guestWatch.start();
  }

  /** Nothing is told from here on. Before the control socket closes. */
  end(end: EventsEnd): void {
    this.hub.end(end);
    this.guestWatch.stop();
  }
}
