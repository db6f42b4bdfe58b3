/** Where a host file has data and where it has holes: `lseek(SEEK_DATA / SEEK_HOLE)`. */
import { errnoName } from '../common/errors.js';
import { lseek, SEEK_DATA, SEEK_HOLE } from './libc.js';

/**
 * Offset of the first byte at or after `offset` that may hold data; -1 when only a hole follows.
 * Answers `offset` itself where the host cannot tell (a file system without holes): all data.
 */
export function seekData(fd: number, offset: number): number {
  if (fd < 0) return offset;
  try {
    return lseek(fd, offset, SEEK_DATA);
  } catch (error) {
    // Holes are an economy, never needed for right bytes: whoever reads hears of other errors.
    return errnoName(error) === 'ENXIO' ? -1 : offset;
  }
}

/**
 * Offset of the first byte at or after `offset` that lies in a hole; `size` where there is none or
 * it is not known.
 */
export function seekHole(fd: number, offset: number, size: number): number {
  if (fd < 0) return size;
  try {
    return Math.min(lseek(fd, offset, SEEK_HOLE), size);
  } catch {
    // As above.
    return size;
  }
}

/** Bytes of [start, end) that may hold data. */
export function dataBytes(fd: number, start: number, end: number): number {
  let bytes = 0;
  let at = seekData(fd, start);
  while (at >= 0 && at < end) {
    const hole = Math.max(seekHole(fd, at, end), at + 1);
    bytes += hole - at;
    at = hole < end ? seekData(fd, hole) : end;
  }
  return bytes;
}

/**
 * Runs of data and holes of one file, the last one kept: small reads next to each other cost one
 * `lseek`, not one each. What lies past `size` counts as data, so that reading it fails instead of
 * giving zeroes.
 */
export class FileRuns {
  readonly #fd: number;
  readonly #size: number;
  /** The run found last: [start, end). */
  #start = 0;
  #end = 0;
  #isData = true;

  /** @param size bytes of the file. */
  constructor(fd: number, size: number) {
    this.#fd = fd;
    this.#size = size;
  }

  /** Whether the byte at `offset` may hold data; `false`: it lies in a hole. */
  isData(offset: number): boolean {
    if (offset < this.#start || offset >= this.#end) this.#find(offset);
    return this.#isData;
  }

  /** Where the run that holds `offset` ends. */
  endOf(offset: number): number {
    if (offset < this.#start || offset >= this.#end) this.#find(offset);
    return this.#end;
  }

  #find(offset: number): void {
    this.#start = offset;
    if (offset >= this.#size) {
      this.#isData = true;
      this.#end = Number.MAX_SAFE_INTEGER;
      return;
    }
    const data = seekData(this.#fd, offset);
    this.#isData = data === offset;
    if (this.#isData) {
      // A hole made at this very place in between would give an empty run.
      this.#end = Math.max(seekHole(this.#fd, offset, this.#size), offset + 1);
    } else {
      this.#end = data < 0 ? this.#size : Math.min(data, this.#size);
    }
  }
}
