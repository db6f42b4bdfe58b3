/** `daemon restart`: whether this process may hand over to a new one, and when it begins to. */
import { closeSync } from 'node:fs';
import { DiskError, errnoName } from '../common/errors.js';
import { hostCalls } from '../storage/host-calls.js';
import type { Transport } from '../transport/transport.js';
import type { Logger } from './logger.js';
import type { SupervisorLink } from './supervisor-link.js';

export interface RestartParts {
  readonly link: SupervisorLink | undefined;
  readonly transport: () => Transport | undefined;
  readonly log: Logger;
  /** Whether the daemon ends because it was told to; waits for an unmount that is under way. */
  readonly isEnding: () => Promise<boolean>;
  /** Ends this process so that the next one goes on with the mount. */
  readonly handOver: () => Promise<void>;
}

/** What a file system says that takes no writes any more. On a full one a daemon starts. */
const TAKES_NONE: ReadonlySet<string | undefined> = new Set(['EROFS', 'EIO']);

/**
 * A daemon goes on serving what it has open when the host makes the store's file system read-only;
 * another one could not start there, and the mount would be lost with this one.
 * @throws DiskError `failed` when the folder takes no writes.
 */
export function requireWritable(store: string): void {
  try {
    const fd = hostCalls.createNameless(store, 'restart.probe');
    if (fd !== undefined) closeSync(fd);
  } catch (error) {
    const errno = errnoName(error);
    if (errno === undefined || !TAKES_NONE.has(errno)) return;
    throw new DiskError('failed', `a new daemon would not start: ${store} takes no writes`, {
      errno,
      hint: 'this one goes on; see the log of the host, and remount the file system of the store',
      cause: error,
    });
  }
}

export class Restart {
  readonly #parts: RestartParts;
  #handingOver: Promise<void> | undefined;

  constructor(parts: RestartParts) {
    this.#parts = parts;
  }

  /**
   * Returns when a new process is loaded; this one ends right after that.
   * @throws DiskError `not-supported` without a supervisor; `failed` when the new one does not
   * start, or there is no mount any more to go on with.
   */
  async request(): Promise<void> {
    const { link, transport, log } = this.#parts;
    if (link?.isAlive !== true || transport()?.kind !== 'kernel') {
      throw new DiskError('not-supported', 'no supervisor holds the mount of this daemon', {
        hint: 'layerdisk daemon stop, then layerdisk daemon start',
      });
    }
    const problem = await link.renew();
    if (await this.#parts.isEnding()) {
      throw new DiskError('failed', 'the daemon was told to stop while the new one was loaded', {
        hint: 'layerdisk daemon start',
      });
    }
    if (problem !== undefined) {
      throw new DiskError('failed', `the new daemon does not start: ${problem}`, {
        hint: 'the running one goes on; its log has the details',
      });
    }
    log.info('restart: handing over to a new process');
    // The answer goes out before the socket closes.
    setImmediate(() => {
      this.#handingOver ??= this.#begin();
    });
  }

  async #begin(): Promise<void> {
    if (!(await this.#parts.isEnding())) await this.#parts.handOver();
  }
}
