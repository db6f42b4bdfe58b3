/**
 * Reads a range of which different deltas hold different blocks.
 *
 * Each run of blocks costs a system call, so a long read over scattered small writes would cost
 * hundreds. Where one source goes on after a short gap just as far as the disk does, the gap is
 * read along with it, and what others hold there is read over it afterwards: most of the runs of a
 * delta that was written in order melt into one.
 */
import { BLOCK_SIZE } from '../../common/units.js';

/** Who answers for a run: the index of a delta, or one of these. */
export const FROM_BASE = -1;
export const FROM_NOBODY = -2;

/** A gap of more bytes costs more to read than a second call. */
const LONGEST_GAP = 4 * BLOCK_SIZE;
/** Runs taken together: as many blocks as the longest request of the kernel has. */
const MOST_RUNS = 257;

/** What the runs are read from. */
export interface RunSources {
  /**
   * Reads `length` bytes at `position` of a source: all or an error.
   * @param isSpan blocks are among them that others answer for, and that may have been given back.
   */
  readSource(
    source: number,
    target: Buffer,
    targetOffset: number,
    position: number,
    length: number,
    isSpan: boolean,
  ): void;
}

/** One for each thread: its memory would be too much for each volume. */
export class RunReader {
  readonly #sources = new Int32Array(MOST_RUNS);
  /** Bytes into the source, and into the target. */
  readonly #positions = new Float64Array(MOST_RUNS);
  readonly #starts = new Float64Array(MOST_RUNS);
  readonly #lengths = new Float64Array(MOST_RUNS);
  #count = 0;

  /** Forgets what a failed request left. */
  begin(): void {
    this.#count = 0;
  }

  get full(): boolean {
    return this.#count === MOST_RUNS;
  }

  /** Notes the next run; runs come in the order of the target, without holes between them. */
  add(source: number, position: number, start: number, length: number): void {
    const at = this.#count;
    this.#sources[at] = source;
    this.#positions[at] = position;
    this.#starts[at] = start;
    this.#lengths[at] = length;
    this.#count = at + 1;
  }

  /** Reads all runs that were noted, and forgets them. */
  finish(volume: RunSources, target: Buffer): void {
    const count = this.#count;
    this.#count = 0;
    for (let first = 0; first < count; ) {
      const last = this.#spanFrom(first, count);
      if (last === first || !this.#readSpan(volume, target, first, last)) {
        for (let run = first; run <= last; run += 1) this.#readRun(volume, target, run);
      }
      first = last + 1;
    }
  }

  /** The last run that a span from run `first` on reaches; `first` when it stands alone. */
  #spanFrom(first: number, count: number): number {
    if (this.#sources[first] === FROM_NOBODY) return first;
    let last = first;
    let end = this.#starts[first]! + this.#lengths[first]!;
    for (let run = first + 1; run < count; run += 1) {
      const runEnd = this.#starts[run]! + this.#lengths[run]!;
      if (this.#continues(first, run)) {
        last = run;
        end = runEnd;
      } else if (runEnd - end > LONGEST_GAP) {
        break;
      }
    }
    return last;
  }

  /** Whether a run lies as far from another in its source as it does in the target. */
  #continues(first: number, run: number): boolean {
    return (
      this.#sources[run] === this.#sources[first] &&
      this.#positions[run]! - this.#positions[first]! === this.#starts[run]! - this.#starts[first]!
    );
  }

  /** @returns false when the source cannot be read in one piece: what lies in a gap may be bad. */
  #readSpan(volume: RunSources, target: Buffer, first: number, last: number): boolean {
    const start = this.#starts[first]!;
    const length = this.#starts[last]! + this.#lengths[last]! - start;
    try {
      const position = this.#positions[first]!;
      volume.readSource(this.#sources[first]!, target, start, position, length, true);
    } catch {
      // Not lost: each run is read alone now, and an error in one of them is the caller's.
      return false;
    }
    for (let run = first + 1; run < last; run += 1) {
      if (!this.#continues(first, run)) this.#readRun(volume, target, run);
    }
    return true;
  }

  #readRun(volume: RunSources, target: Buffer, run: number): void {
    const start = this.#starts[run]!;
    const length = this.#lengths[run]!;
    const source = this.#sources[run]!;
    if (source === FROM_NOBODY) target.fill(0, start, start + length);
    else volume.readSource(source, target, start, this.#positions[run]!, length, false);
  }
}
