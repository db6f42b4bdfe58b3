/** The end of a mount whose daemon ends, used or not. */
import { setImmediate as turn } from 'node:timers/promises';
import type { Transport } from '../transport/transport.js';
import type { Logger } from './logger.js';

/**
 * Takes the mount away from whoever uses it.
 * @returns false when requests may still come. A mount that was taken away lazily lives on with
 *   its open files, one that another mount namespace has a copy of with that copy; where nothing
 *   else can end the connection, the end of this process does.
 */
export async function leaveMount(transport: Transport | undefined, log: Logger): Promise<boolean> {
  if (transport === undefined) return true;
  try {
    await transport.stop({ force: true });
  } catch (error) {
    log.warn('ending although the mount is in use', { error });
    return false;
  }
  return await Promise.race([transport.ended.then(() => true), turn(false)]);
}
