/**
 * Space of the host that the store keeps for itself, so that a full file system does not keep
 * anybody from deleting: that takes a new manifest first, and gives back space later.
 */
import { closeSync } from 'node:fs';
import { DiskError, errnoName } from '../common/errors.js';
import { Periodic } from '../common/periodic.js';
import { MiB } from '../common/units.js';
import { hostCalls } from '../storage/host-calls.js';
import { fileSize, removeFile } from '../storage/small-files.js';
import { preallocate } from '../storage/sparse-space.js';

/** Room for the largest manifest, twice, and for folders that grow. */
const HEADROOM_BYTES = 2 * MiB;
/** How often it is looked at whether there is room for it again, milliseconds. */
const REFILL_MS = 60_000;

export class Headroom {
  readonly #path: string;
  readonly #refill = new Periodic(REFILL_MS, async () => this.#fill());

  constructor(path: string) {
    this.#path = path;
  }

  start(): void {
    this.#fill();
    this.#refill.start();
  }

  async stop(): Promise<void> {
    await this.#refill.stop();
  }

  /**
   * Runs `task`, and once more with that space given back if the host had none left.
   * @param task whose failure has changed nothing, or made another try fail as `not-found`.
   */
  async lend<T>(task: () => Promise<T>): Promise<T> {
    try {
      return await task();
    } catch (error) {
      if (!isOutOfSpace(error) || !this.#giveBack()) throw error;
      return await task().catch((second: unknown) => {
        throw isGone(second) ? error : second;
      });
    }
  }

  /** @returns whether there was anything to give. */
  #giveBack(): boolean {
    try {
      if (fileSize(this.#path) === undefined) return false;
      removeFile(this.#path, 'headroom.remove');
      return true;
    } catch {
      // The error that is about to be reported is the one that matters.
      return false;
    }
  }

  #fill(): void {
    let fd: number;
    try {
      if (fileSize(this.#path) !== undefined) return;
      fd = hostCalls.create(this.#path, 'wx', 'headroom.create');
    } catch {
      // Full, or read-only: there is nothing to keep.
      return;
    }
    try {
      preallocate(fd, HEADROOM_BYTES, 'headroom.preallocate');
    } catch {
      // What is left is for others.
      this.#giveBack();
    } finally {
      closeSync(fd);
    }
  }
}

/** What the first try did after all: only making that durable had failed. */
function isGone(error: unknown): boolean {
  const known = error instanceof DiskError;
  return known && (error.code === 'not-found' || error.errno === 'ENOENT');
}

function isOutOfSpace(error: unknown): boolean {
  const errno = error instanceof DiskError ? error.errno : errnoName(error);
  return errno === 'ENOSPC' || errno === 'EDQUOT';
}
