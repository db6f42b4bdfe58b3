/**
 * Copying everything that one volume shows into another: the full clone's work, on a background
 * thread.
 */

import { DiskError } from '../../common/errors.js';
import { alignDown, BLOCK_SIZE, formatSize, KiB, MiB } from '../../common/units.js';
import { isZero } from '../../common/zeroes.js';
import { FULL_HINT } from '../../storage/exact-io.js';
import type { Extent } from '../disk-image.js';
import type { JobWork } from '../engine.js';
import { DELTA, DELTA_WORDS } from '../shared/shared-memory.js';
import { type ThreadContext, Volume } from '../volume/volume.js';
import { Pace } from './pace.js';

const CHUNK = MiB;
/** Zeroes among data are left out by so many bytes: fewer would cut the index into small pieces. */
const ZERO_UNIT = 64 * KiB;

/**
 * Copies the allocated ranges of `source` (sealed: it cannot change meanwhile) into the empty head
 * `target`. Shares the host's blocks instead where it can. Where the target stands on something,
 * that shows through where nobody holds anything in the source, and is hidden by its zeroes.
 * @throws DiskError `interrupted` when cancelled; ENOSPC, before the first byte is copied where it
 * is known that there is no room for all; others from the host.
 */
export async function copyVolume(
  context: ThreadContext,
  volumes: { readonly source: number; readonly target: number },
  work: JobWork,
): Promise<void> {
  const source = new Volume(context, volumes.source);
  const target = new Volume(context, volumes.target);
  await new VolumeCopy(context, source, target).run(work);
  target.flush();
}

class VolumeCopy {
  readonly #context: ThreadContext;
  readonly #source: Volume;
  readonly #target: Volume;
  readonly #buffer = Buffer.alloc(CHUNK);
  readonly #extent: Extent = { state: 'unallocated', length: 0 };
  #canReflink = true;
  #isRoomChecked = false;

  constructor(context: ThreadContext, source: Volume, target: Volume) {
    this.#context = context;
    this.#source = source;
    this.#target = target;
  }

  async run(work: JobWork): Promise<void> {
    const pace = new Pace(work);
    const { size, allocatedSize } = this.#source;
    let copied = 0;
    // Asking for much where there is data may cost a walk over all of it, so it grows slowly.
    let ask = CHUNK;
    for (let offset = 0; offset < size; ) {
      await pace.rest();
      this.#source.extentAt(offset, Math.min(ask, size - offset), this.#extent);
      const { state, length } = this.#extent;
      if (state === 'data') {
        let done = this.#canReflink ? this.#share(offset) : 0;
        if (done < 0) this.#canReflink = false;
        if (done <= 0) {
          if (!this.#isRoomChecked) await this.#checkRoom(offset, pace);
          done = this.#copy(offset, Math.min(length, CHUNK - (offset % CHUNK)));
        }
        offset += done;
        copied += done;
        ask = CHUNK;
        work.onProgress?.(copied, Math.max(copied, allocatedSize));
        continue;
      }
      // Stored only where something else could be read.
      if (state === 'zero') this.#target.discard(offset, length);
      offset += length;
      ask *= 2;
    }
  }

  /** @returns bytes copied from `offset` on: all. */
  #copy(offset: number, length: number): number {
    this.#source.read(this.#buffer, 0, offset, length);
    for (let from = 0; from < length; ) {
      const zero = this.#isZeroUnit(offset, from, length);
      let to = endOfUnit(offset, from, length);
      while (to < length && this.#isZeroUnit(offset, to, length) === zero) {
        to = endOfUnit(offset, to, length);
      }
      if (zero) this.#target.discard(offset + from, to - from);
      else this.#target.write(this.#buffer, from, offset + from, to - from);
      from = to;
    }
    return length;
  }

  /**
   * Asks whether there is room for what is still to be copied. Zeroes among the data are known only
   * when they were read: that is done where all depends on them.
   * @throws DiskError ENOSPC.
   */
  async #checkRoom(from: number, pace: Pace): Promise<void> {
    this.#isRoomChecked = true;
    const { left } = this.#context.allowance;
    if (left === Number.POSITIVE_INFINITY) return;
    let held = 0;
    for (const { length } of this.#toCopy(from)) held += length;
    if (held <= left) return;
    let needed = 0;
    for (const { offset, length } of this.#toCopy(from)) {
      for (let at = offset; at < offset + length && needed <= left; ) {
        await pace.rest();
        const piece = Math.min(offset + length - at, CHUNK - (at % CHUNK));
        needed += this.#nonZeroBytes(at, piece);
        at += piece;
      }
    }
    if (needed <= left) return;
    const [wanted, there] = [held, left].map(formatSize);
    throw new DiskError(
      'failed',
      `the copy needs up to ${wanted}; the store has room for ${there}`,
      {
        errno: 'ENOSPC',
        hint: FULL_HINT,
      },
    );
  }

  /** The runs of data that cannot be shared: what lies in deltas takes no room where it can. */
  *#toCopy(from: number): Generator<{ offset: number; length: number }> {
    const source = this.#source;
    const extent: Extent = { state: 'unallocated', length: 0 };
    for (let at = from; at < source.size; at += extent.length) {
      source.deltaExtentAt(at, source.size - at, extent);
      const isInDelta = extent.state === 'data';
      if (extent.state === 'unallocated') source.extentAt(at, extent.length, extent);
      const { state, length } = extent;
      if (state === 'data' && !(isInDelta && this.#canReflink)) yield { offset: at, length };
    }
  }

  #nonZeroBytes(offset: number, length: number): number {
    this.#source.read(this.#buffer, 0, offset, length);
    let bytes = 0;
    for (let from = 0; from < length; from = endOfUnit(offset, from, length)) {
      if (!this.#isZeroUnit(offset, from, length)) bytes += endOfUnit(offset, from, length) - from;
    }
    return bytes;
  }

  #isZeroUnit(offset: number, from: number, length: number): boolean {
    return isZero(this.#buffer, from, endOfUnit(offset, from, length) - from);
  }

  /** @returns bytes shared, 0 when this run is not in a delta, -1 when the host cannot share. */
  #share(offset: number): number {
    if (offset % BLOCK_SIZE !== 0) return 0;
    const block = offset / BLOCK_SIZE;
    const most = alignDown(this.#source.size - offset, BLOCK_SIZE);
    if (most === 0) return 0;
    this.#source.deltaExtentAt(offset, most, this.#extent);
    if (this.#extent.state !== 'data') return 0;
    const found = this.#source.mapAt(offset, most);
    if (found.kind !== 'delta') return 0;
    const { delta, length } = found;
    const fd = this.#context.views.deltas[delta * DELTA_WORDS + DELTA.dataFd]!;
    const place = { fd, offset: found.offset };
    if (!this.#target.shareBlocks(block, length / BLOCK_SIZE, place)) return -1;
    // A merge may have closed the delta since it was looked up, and its descriptor may be another
    // file's by now: nobody was inside the source.
    const now = this.#source.mapAt(offset, length);
    const isStill = now.kind === 'delta' && now.delta === delta && now.offset === place.offset;
    if (!isStill || now.length < length) this.#copyOver(offset, length);
    return length;
  }

  #copyOver(offset: number, length: number): void {
    for (let at = offset; at < offset + length; ) {
      at += this.#copy(at, Math.min(offset + length - at, CHUNK - (at % CHUNK)));
    }
  }
}

/** Where the unit of the disk ends that holds the byte `from` of what begins at `offset`. */
function endOfUnit(offset: number, from: number, length: number): number {
  return Math.min(from + ZERO_UNIT - ((offset + from) % ZERO_UNIT), length);
}
