/**
 * Where a host file has data and where it has holes: `lseek(SEEK_DATA / SEEK_HOLE)`, which Node
 * does not offer.
 */
import { createRequire } from 'node:module';
import type koffi from 'koffi';

/** Constants of lseek(2) on Linux. */
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
/** errno 6: no data at or after the offset. */
const ENXIO = 6;

type Lseek = (fd: number, offset: number, whence: number) => number;

interface Libc {
  readonly lseek: Lseek;
  errno(): number;
}

/** Undefined where koffi or libc cannot be loaded: every file is then taken as all data. */
const libc = loadLibc();

/**
 * Offset of the first byte at or after `offset` that may hold data; -1 when only a hole follows.
 * Answers `offset` itself where the host cannot tell (no lseek, a file system without holes): all
 * data.
 */
export function seekData(fd: number, offset: number): number {
  if (libc === undefined || fd < 0) return offset;
  const found = libc.lseek(fd, offset, SEEK_DATA);
  if (found >= 0) return found;
  return libc.errno() === ENXIO ? -1 : offset;
}

/**
 * Offset of the first byte at or after `offset` that lies in a hole; `size` where there is none or
 * it is not known.
 */
export function seekHole(fd: number, offset: number, size: number): number {
  if (libc === undefined || fd < 0) return size;
  const found = libc.lseek(fd, offset, SEEK_HOLE);
  return found < 0 ? size : Math.min(found, size);
}

/** Whether holes can be told from data at all here. */
export function canSeekHoles(): boolean {
  return libc !== undefined;
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

function loadLibc(): Libc | undefined {
  if (process.platform !== 'linux') return undefined;
  try {
    // koffi is a CommonJS package with a native part: `require` lets its absence be caught here.
    const ffi = createRequire(import.meta.url)('koffi') as typeof koffi;
    const library = ffi.load(null);
    const lseek: Lseek = library.func('int64_t lseek(int fd, int64_t offset, int whence)');
    return { lseek, errno: () => ffi.errno() };
  } catch {
    // Holes are an economy, never needed for right bytes: without them a sparse file is read as all
    // data.
    return undefined;
  }
}
