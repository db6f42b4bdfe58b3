/** A file seen as it will be once a list of updates has been written to it. */
import type { ReadableFile } from '../../storage/host-file.js';
import { firstAbove } from '../file-ranges.js';
import { damaged } from '../image-error.js';
import type { LogUpdates } from './log-updates.js';
import { LOG_SECTOR_SIZE } from './vhdx-layout.js';

/** Marks a stretch that no update covers. */
const ORIGINAL = -1;

/**
 * INVARIANT: the segments are sorted and do not overlap; each shows the last update that covers it.
 * INVARIANT: memory grows with the number of updates only: data stays in the log.
 */
export class ReplayedFile implements ReadableFile {
  readonly path: string;
  readonly fd = -1;
  readonly size: number;
  readonly #file: ReadableFile;
  readonly #updates: LogUpdates;
  readonly #starts: Float64Array;
  readonly #ends: Float64Array;
  /** Index of the update that a segment shows. */
  readonly #shown: Int32Array;
  readonly #sector = Buffer.alloc(LOG_SECTOR_SIZE);

  /**
   * @param leastSize what the file is extended to, with zeroes, if the updates do not do so
   *   already.
   */
  constructor(file: ReadableFile, updates: LogUpdates, leastSize: number) {
    const segments = flatten(updates);
    this.path = file.path;
    this.#file = file;
    this.#updates = updates;
    this.#starts = segments.starts;
    this.#ends = segments.ends;
    this.#shown = segments.shown;
    this.size = Math.max(file.size, leastSize, segments.ends.at(-1) ?? 0);
  }

  readExact(target: Buffer, targetOffset: number, length: number, offset: number): void {
    if (offset + length > this.size) {
      throw damaged(
        this.path,
        `file ends at ${this.size}, but ${length} bytes at ${offset} are needed`,
      );
    }
    let done = 0;
    while (done < length) {
      const at = offset + done;
      const segment = firstAbove(this.#ends, at);
      const start = this.#starts[segment] ?? Number.POSITIVE_INFINITY;
      const isOwn = at < start;
      const end = isOwn ? start : this.#ends[segment]!;
      const count = Math.min(end - at, length - done);
      if (isOwn) this.#readOriginal(target, targetOffset + done, count, at);
      else this.#readUpdate(target, targetOffset + done, count, at, segment);
      done += count;
    }
  }

  close(): void {
    this.#file.close();
  }

  #readOriginal(target: Buffer, start: number, count: number, at: number): void {
    const inFile = Math.max(0, Math.min(count, this.#file.size - at));
    this.#file.readExact(target, start, inFile, at);
    target.fill(0, start + inFile, start + count);
  }

  #readUpdate(target: Buffer, start: number, count: number, at: number, segment: number): void {
    const update = this.#shown[segment]!;
    const sectorOffset = this.#updates.sectorOffset(update);
    if (sectorOffset === undefined) {
      target.fill(0, start, start + count);
      return;
    }
    const sector = this.#sector;
    this.#file.readExact(sector, 0, sector.length, sectorOffset);
    this.#updates.complete(update, sector);
    const from = at - this.#updates.offsets[update]!;
    sector.copy(target, start, from, from + count);
  }
}

/** Which update is the last to cover each stretch; stretches without one are left out. */
function flatten(updates: LogUpdates): {
  starts: Float64Array;
  ends: Float64Array;
  shown: Int32Array;
} {
  const bounds = boundsOf(updates);
  const shown = new Int32Array(bounds.length).fill(ORIGINAL);
  // Painted from the newest update to the oldest; `skip` leads past what is painted already.
  const skip = new Int32Array(bounds.length).map((_, index) => index);
  const unpainted = (from: number) => {
    let at = from;
    while (at < skip.length && skip[at] !== at) {
      skip[at] = skip[skip[at]!] ?? skip.length;
      at = skip[at]!;
    }
    return at;
  };
  let painted = 0;
  for (let index = updates.count - 1; index >= 0; index -= 1) {
    const offset = updates.offsets[index]!;
    const last = firstAbove(bounds, offset + updates.lengths[index]!) - 1;
    for (let at = unpainted(firstAbove(bounds, offset) - 1); at < last; at = unpainted(at)) {
      shown[at] = index;
      skip[at] = at + 1;
      painted += 1;
    }
  }
  return segmentsOf(bounds, shown, painted);
}

/** Where updates begin and end, ascending, each once. */
function boundsOf({ offsets, lengths, count }: LogUpdates): Float64Array {
  const bounds = new Float64Array(2 * count);
  for (let index = 0; index < count; index += 1) {
    bounds[2 * index] = offsets[index]!;
    bounds[2 * index + 1] = offsets[index]! + lengths[index]!;
  }
  bounds.sort();
  let distinct = 0;
  for (const bound of bounds) {
    if (distinct > 0 && bounds[distinct - 1] === bound) continue;
    bounds[distinct] = bound;
    distinct += 1;
  }
  return bounds.subarray(0, distinct);
}

function segmentsOf(bounds: Float64Array, paint: Int32Array, count: number) {
  const starts = new Float64Array(count);
  const ends = new Float64Array(count);
  const shown = new Int32Array(count);
  let segment = 0;
  for (let at = 0; at < paint.length; at += 1) {
    if (paint[at] === ORIGINAL) continue;
    starts[segment] = bounds[at]!;
    ends[segment] = bounds[at + 1]!;
    shown[segment] = paint[at]!;
    segment += 1;
  }
  return { starts, ends, shown };
}
