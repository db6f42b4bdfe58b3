/** Where a host file has data and where it has holes: `lseek(SEEK_DATA / SEEK_HOLE)`, which Node does not offer. */
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
 * Answers `offset` itself where the host cannot tell (no lseek, a file system without holes): all data.
 */
export function seekData(fd: number, offset: number): number {
  if (libc === undefined || fd < 0) return offset;
  const found = libc.lseek(fd, offset, SEEK_DATA);
  if (found >= 0) return found;
  return libc.errno() === ENXIO ? -1 : offset;
}

/** Offset of the first byte at or after `offset` that lies in a hole; `size` where there is none or it is not known. */
export function seekHole(fd: number, offset: number, size: number): number {
  if (libc === undefined || fd < 0) return size;
  const found = libc.lseek(fd, offset, SEEK_HOLE);
  return found < 0 ? size : Math.min(found, size);
}

/** Whether holes can be told from data at all here. */
export function canSeekHoles(): boolean {
  return libc !== undefined;
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
    // Holes are an economy, never needed for right bytes: without them a sparse file is read as all data.
    return undefined;
  }
}
