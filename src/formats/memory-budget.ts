/**
 * The memory that the tables and caches of one chain of images may take together, in one thread.
 * Each image alone is bounded; a thousand of them on each other would not be. A daemon opens a
 * chain in up to four threads or more (each I/O thread, the background thread, and for an import
 * the main thread), and must stay below 256 MiB with all of them.
 */
import { DiskError } from '../common/errors.js';
import { MiB } from '../common/units.js';

/** The largest qcow2 alone needs 36 MiB that cannot be given up: tables it must have at hand. */
const LIMIT_BYTES = 40 * MiB;
/** Up to here caches grow. */
const CACHED_BYTES = 20 * MiB;
/** Caches may have this much even where tables take the rest. */
const LEAST_CACHED_BYTES = 4 * MiB;
/** What an array costs besides its bytes, or any other object that is kept. */
export const OBJECT_BYTES = 512;

export class MemoryBudget {
  static #current: MemoryBudget | undefined;
  #fixed = 0;
  #cached = 0;
  #dropLast: (() => void) | undefined;
  #scratch: Buffer = Buffer.alloc(0);

  /** The budget of the chain that is being opened; outside of that, one of its own. */
  static get current(): MemoryBudget {
    return MemoryBudget.#current ?? new MemoryBudget();
  }

  /** Lets all images that `open` opens share one budget. It must not wait for anything. */
  static share<T>(open: () => T): T {
    const outer = MemoryBudget.#current;
    MemoryBudget.#current = new MemoryBudget();
    try {
      return open();
    } finally {
      MemoryBudget.#current = outer;
    }
  }

  /** Room for packed bytes, until the next call; grown to the most that was asked for. */
  scratch(length: number): Buffer {
    if (this.#scratch.length < length) this.#scratch = Buffer.allocUnsafeSlow(length);
    return this.#scratch.subarray(0, length);
  }

  /**
   * Memory that stays as long as the image is open.
   * @throws DiskError `not-supported` naming the image whose tables are too much.
   */
  take(bytes: number, path: string): void {
    this.#fixed += bytes;
    if (this.#fixed <= LIMIT_BYTES) return;
    throw new DiskError(
      'not-supported',
      `${path}: the tables of this image and those it stands on take more than ` +
        `${LIMIT_BYTES / MiB} MiB of memory`,
      {
        hint:
          'make one image of the chain, with larger clusters: qemu-img convert, or for VHD and ' +
          'VHDX Convert-VHD of Hyper-V',
      },
    );
  }

  /** Memory for a cache. @returns false when it must do with what it has. */
  grow(bytes: number): boolean {
    const room = Math.max(CACHED_BYTES - this.#fixed, LEAST_CACHED_BYTES);
    if (this.#cached + bytes > room) return false;
    this.#cached += bytes;
    return true;
  }

  /** The least that a cache needs for its work, held by one at a time: the last one drops its. */
  borrow(drop: () => void): void {
    if (this.#dropLast !== drop) this.#dropLast?.();
    this.#dropLast = drop;
  }
}

export function currentBudget(): MemoryBudget {
  return MemoryBudget.current;
}

export function inOneBudget<T>(open: () => T): T {
  return MemoryBudget.share(open);
}
