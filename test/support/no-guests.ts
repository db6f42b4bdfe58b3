/** A store in which no guest runs, for tests of other things. */
import { join } from 'node:path';
import { Guests } from '../../src/daemon/guests.js';
import { createLogger } from '../../src/daemon/logger.js';

export function noGuests({ folder }: { readonly folder: string }): Guests {
  return new Guests({
    folder: join(folder, 'vms-run'),
    find: () => undefined,
    numbers: () => new Set(),
    log: createLogger(),
  });
}
