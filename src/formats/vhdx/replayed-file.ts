/** A file seen as it will be once a list of updates has been written to it. */
import type { ReadableFile } from '../../storage/host-file.js';
import { firstAbove } from '../file-ranges.js';
import { damaged } from '../image-error.js';
import { LOG_SECTOR_SIZE } from './vhdx-layout.js';

/** Zeroes, or a sector whose middle lies in the log. */
export interface LogUpdate {
  /** In the file. */
  readonly offset: number;
  readonly length: number;
  readonly data?: {
    readonly leading: Buffer;
    readonly trailing: Buffer;
    /** Of the log's data sector, in the file. */
    readonly sectorOffset: number;
  };
}

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
  readonly #updates: readonly LogUpdate[];
  readonly #starts: Float64Array;
  readonly #ends: Float64Array;
  /** Index of the update that a segment shows. */
  readonly #shown: Int32Array;
  readonly #sector = Buffer.alloc(LOG_SECTOR_SIZE);

  /**
   * @param leastSize what the file is extended to, with zeroes, if the updates do not do so
   *   already.
   */
  constructor(file: ReadableFile, updates: readonly LogUpdate[], leastSize: number) {
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
    const update = this.#updates[this.#shown[segment]!]!;
    if (update.data === undefined) {
      target.fill(0, start, start + count);
      return;
    }
    const { leading, trailing, sectorOffset } = update.data;
    const sector = this.#sector;
    this.#file.readExact(sector, 0, sector.length, sectorOffset);
    leading.copy(sector, 0);
    trailing.copy(sector, sector.length - trailing.length);
    sector.copy(target, start, at - update.offset, at - update.offset + count);
  }
}

/** Which update is the last to cover each stretch; stretches without one are left out. */
function flatten(updates: readonly LogUpdate[]): {
  starts: Float64Array;
  ends: Float64Array;
  shown: Int32Array;
} {
  const bounds = Float64Array.from(
    new Set(updates.flatMap(({ offset, length }) => [offset, offset + length])),
  ).sort();
  const shown = new Int32Array(bounds.length).fill(ORIGINAL);
  // Painted from the newest update to the oldest; `skip` leads past what is painted already.
  const skip = Int32Array.from(bounds, (_, index) => index);
  const unpainted = (from: number) => {
    let at = from;
    while (at < skip.length && skip[at] !== at) {
      skip[at] = skip[skip[at]!] ?? skip.length;
      at = skip[at]!;
    }
    return at;
  };
  for (let index = updates.length - 1; index >= 0; index -= 1) {
    const { offset, length } = updates[index]!;
    const last = firstAbove(bounds, offset + length) - 1;
    for (let at = unpainted(firstAbove(bounds, offset) - 1); at < last; at = unpainted(at)) {
      shown[at] = index;
      skip[at] = at + 1;
    }
  }
  const painted = Array.from(shown.keys()).filter((at) => shown[at] !== ORIGINAL);
  return {
    starts: Float64Array.from(painted, (at) => bounds[at]!),
    ends: Float64Array.from(painted, (at) => bounds[at + 1]!),
    shown: Int32Array.from(painted, (at) => shown[at]!),
  };
}
