/**
 * Files that stay open, as those of disks do, leave the last descriptors that the process may have
 * to others: whoever has too many disks open can still list, stop and delete them.
 */
import { closeSync, readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { SystemCallError } from './libc.js';

/** For control connections, files that are open for the length of a call, and threads that load. */
const MOST_RESERVED = 64;
/** Where the limit is low, the reserve is one of so many. */
const SHARE = 4;

export class DescriptorReserve {
  /** The first descriptor that is one of the last. */
  readonly #from = firstReserved();
  #lifted = 0;

  /** Lets others have the reserve, too. @returns what ends that. */
  lift(): () => void {
    this.#lifted += 1;
    return () => {
      this.#lifted -= 1;
    };
  }

  /**
   * Closes a descriptor that is one of the last: open(2) gives the lowest that is free.
   * @throws SystemCallError EMFILE then.
   */
  leave(fd: number): number {
    if (fd < this.#from || this.#lifted > 0) return fd;
    closeSync(fd);
    throw new SystemCallError('open', constants.errno.EMFILE);
  }
}

/** Node.js raises the soft limit to the hard one when it starts, and nobody changes it later. */
function firstReserved(): number {
  const limit = openFilesLimit();
  return limit - Math.min(MOST_RESERVED, Math.floor(limit / SHARE));
}

function openFilesLimit(): number {
  try {
    const limits = readFileSync('/proc/self/limits', 'utf8');
    return Number(/^Max open files\s+(\d+)/m.exec(limits)?.[1] ?? Number.POSITIVE_INFINITY);
  } catch {
    // No Linux, or no /proc: without a reserve.
    return Number.POSITIVE_INFINITY;
  }
}
