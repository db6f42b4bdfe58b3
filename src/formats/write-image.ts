/**
 * Writes a disk into a new image of any format: walks the source, leaves out what is zero, and
 * publishes the files when everything is in them.
 */
import { DiskError } from '../common/errors.js';
import { alignDown, alignUp, BLOCK_SIZE } from '../common/units.js';
import { isZero } from '../common/zeroes.js';
import type { Base } from '../engine/base.js';
import type { Extent } from '../engine/disk-image.js';
import type { OutputFiles } from '../storage/output-files.js';
import {
  type ImageWriter,
  type ImageWriting,
  WRITE_CHUNK,
  type WriteOptions,
} from './image-writer.js';

/** Extents that are looked at in a row, before others have their turn and a cancel is noticed. */
const MAX_LOOKS = 64;

/**
 * The disk to write. For a differencing image `unallocated` means that the parent answers, while
 * `readAt` always gives what the whole chain shows; else everything but `data` reads as zeroes.
 */
export type ImageSource = Omit<Base, 'close'>;

export interface WriteHooks {
  /** Bytes of `data` handled so far. */
  onProgress?(doneBytes: number): void;
  cancelled?(): boolean;
  /** Called between pieces, for what else there is to do. */
  rest?(): Promise<void>;
}

/**
 * Writes `source` as one image and gives its files their names; on any error, and when cancelled,
 * nothing is left of them.
 * @throws DiskError `interrupted` when cancelled; what the writer, the source and the host throw.
 */
export async function writeImage(
  source: ImageSource,
  outputs: OutputFiles,
  writing: ImageWriting,
  options: WriteOptions,
  hooks: WriteHooks = {},
): Promise<void> {
  try {
    const writer = writing.create(outputs, options);
    await new ImageCopy(source, writer, options.parent !== undefined, hooks).run();
    writer.finish();
    checkNotCancelled(hooks);
    outputs.commit();
  } catch (error) {
    outputs.discard();
    throw error;
  }
}

/** @throws DiskError `interrupted`. */
export function checkNotCancelled(hooks: WriteHooks): void {
  if (hooks.cancelled?.() === true) {
    throw new DiskError('interrupted', 'cancelled; nothing was left behind');
  }
}

/**
 * INVARIANT: `#at` is a multiple of the writer's granularity, or the end of the disk; everything
 * before it has been handed over or left out.
 */
class ImageCopy {
  readonly #source: ImageSource;
  readonly #writer: ImageWriter;
  readonly #size: number;
  /** With a parent, zeroes are said and not left out. */
  readonly #differencing: boolean;
  readonly #hooks: WriteHooks;
  /** Bytes that are judged together: whole units of the writer. */
  readonly #step: number;
  readonly #buffer = Buffer.alloc(WRITE_CHUNK);
  readonly #extent: Extent = { state: 'unallocated', length: 0 };
  #at = 0;
  #done = 0;
  #allZero = false;

  constructor(source: ImageSource, writer: ImageWriter, differencing: boolean, hooks: WriteHooks) {
    this.#source = source;
    this.#writer = writer;
    this.#size = source.virtualSize;
    this.#differencing = differencing;
    this.#hooks = hooks;
    this.#step = Math.max(writer.granularity, BLOCK_SIZE);
  }

  async run(): Promise<void> {
    for (;;) {
      checkNotCancelled(this.#hooks);
      const found = this.#skipAbsent();
      if (this.#at >= this.#size) return;
      if (found) await this.#copyPiece();
      this.#hooks.onProgress?.(this.#done);
      await this.#hooks.rest?.();
    }
  }

  /** Whether the extent looked at last needs no writing. */
  #isAbsent(): boolean {
    const { state } = this.#extent;
    return this.#differencing ? state === 'unallocated' : state !== 'data';
  }

  /**
   * Moves on to the unit that holds the next byte worth writing.
   * @returns false when it was not found yet: the tables of a vast disk take long to look through.
   */
  #skipAbsent(): boolean {
    const pause = this.#at + this.#writer.granularity;
    let at = this.#at;
    // Asking for much where there is data may cost a walk over all of it, so it grows slowly.
    let ask = WRITE_CHUNK;
    let found = false;
    for (let looks = 0; at < this.#size && (looks < MAX_LOOKS || at < pause); looks += 1) {
      this.#source.extentAt(at, Math.min(ask, this.#size - at), this.#extent);
      found = !this.#isAbsent();
      if (found) break;
      at += this.#extent.length;
      ask *= 2;
    }
    this.#at = at < this.#size ? alignDown(at, this.#writer.granularity) : this.#size;
    return found;
  }

  /** Hands over the units from `#at` on that hold something, as far as one call may reach. */
  async #copyPiece(): Promise<void> {
    const start = this.#at;
    const end = this.#endOfPiece(start);
    this.#at = end;
    if (this.#allZero) {
      this.#writer.zero(start, end - start);
      return;
    }
    this.#source.readAt(this.#buffer, 0, start, end - start);
    for (let from = start; from < end; ) {
      const zero = this.#isZeroStep(start, from, end);
      let to = this.#endOfStep(from, end);
      while (to < end && this.#isZeroStep(start, to, end) === zero) to = this.#endOfStep(to, end);
      if (!zero) {
        const written = this.#writer.write(from, this.#buffer, from - start, to - from);
        if (written !== undefined) await written;
      } else if (this.#differencing) {
        this.#writer.zero(from, to - from);
      }
      from = to;
    }
  }

  /**
   * The end of the row of units at `start` that hold something; says in `#allZero` whether they are
   * zero by their extents alone.
   */
  #endOfPiece(start: number): number {
    const { granularity } = this.#writer;
    const limit = Math.min(alignDown(start, WRITE_CHUNK) + WRITE_CHUNK, this.#size);
    // Something was found in the first unit already.
    let end = Math.min(start + granularity, limit);
    this.#allZero = true;
    for (let at = start; at < limit; ) {
      this.#source.extentAt(at, limit - at, this.#extent);
      const { state, length } = this.#extent;
      if (this.#isAbsent() && at >= end) break;
      if (state !== 'zero') this.#allZero = false;
      if (this.#isAbsent()) {
        at = Math.min(at + length, end);
      } else {
        if (state === 'data') this.#done += length;
        at += length;
        end = Math.max(end, Math.min(alignUp(at, granularity), limit));
      }
    }
    return end;
  }

  #endOfStep(from: number, end: number): number {
    return Math.min(alignUp(from + 1, this.#step), end);
  }

  /** Whether the step at `from` is zero in the buffer, which holds the disk from `start` on. */
  #isZeroStep(start: number, from: number, end: number): boolean {
    return isZero(this.#buffer, from - start, this.#endOfStep(from, end) - from);
  }
}
