/** All methods of the control protocol, each from the file that answers for it. */
import type { Handlers } from '../../control/protocol.js';
import type { LocalEngine } from '../../engine/local-engine.js';
import { attachHandlers } from './attach-handlers.js';
import type { AttachSources } from './attached-disks.js';
import { type DaemonParts, daemonHandlers } from './daemon-handlers.js';
import { diffHandlers } from './diff-handlers.js';
import { type GuestHandlerSources, guestHandlers } from './guest-handlers.js';
import { machineFileHandlers } from './machine-file-handlers.js';
import { mapHandlers } from './map-handlers.js';
import { type TellingParts, tellingHandlers } from './telling-handlers.js';
import { vmHandlers } from './vm-handlers.js';

export interface HandlerSources extends GuestHandlerSources, AttachSources {
  readonly engine: LocalEngine;
}

type Telling = Omit<TellingParts, 'service' | 'mountpoint'>;

export function allHandlers(
  sources: HandlerSources,
  daemon: Omit<DaemonParts, 'service' | 'engine' | 'guests'>,
  telling: Telling,
): Handlers {
  const { service, engine, guests, mountpoint } = sources;
  const handlers = {
    ...vmHandlers(sources),
    ...attachHandlers(sources),
    ...mapHandlers(sources),
    ...diffHandlers(service),
    ...guestHandlers(sources),
    ...machineFileHandlers(sources),
    ...daemonHandlers({ ...daemon, service, engine, guests }),
  };
  return tellingHandlers(handlers, { ...telling, service, mountpoint });
}
