/** The end of a mount whose daemon ends, used or not. */
import type { Transport } from '../transport/transport.js';
import type { Logger } from './logger.js';

/**
 * Takes the mount away from whoever uses it.
 * @returns false when requests may still come: a mount that was taken away lazily lives on with
 *   its open files, and where nothing else can end its connection, the end of this process does.
 */
export async function leaveMount(transport: Transport | undefined, log: Logger): Promise<boolean> {
  try {
    await transport?.stop({ force: true });
    return true;
  } catch (error) {
    log.warn('ending although the mount is in use', { error });
    return false;
  }
}
