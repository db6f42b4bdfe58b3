/** Space of host files: preallocating it, punching it out, zeroing it. */
import koffi from 'koffi';
import { DiskError } from '../common/errors.js';
import { hostError } from './exact-io.js';

const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;
const FALLOC_FL_ZERO_RANGE = 16;

/** Names of the errno values that fallocate(2) documents. */
const ERRNO_NAMES: ReadonlyMap<number, string> = new Map(
  (['EIO', 'ENOSPC', 'EFBIG', 'EOPNOTSUPP', 'ENOSYS', 'EINTR', 'EDQUOT', 'EPERM'] as const).map(
    (name) => [koffi.os.errno[name]!, name],
  ),
);

type Fallocate = (fd: number, mode: number, offset: number, length: number) => number;

const fallocate: Fallocate | undefined =
  process.platform === 'linux'
    ? koffi
        .load('libc.so.6')
        .func('int fallocate(int fd, int mode, int64_t offset, int64_t length)')
    : undefined;

function call(fd: number, mode: number, offset: number, length: number, what: string): void {
  if (fallocate === undefined) {
    throw new DiskError('not-supported', `${what}: not supported on this system`, {
      errno: 'EOPNOTSUPP',
    });
  }
  for (;;) {
    if (fallocate(fd, mode, offset, length) === 0) return;
    const name = ERRNO_NAMES.get(koffi.errno()) ?? 'EIO';
    if (name === 'EINTR') continue;
    throw hostError(what, Object.assign(new Error(name), { code: name }));
  }
}

/** Takes `length` bytes of space from offset 0 on; they read as zero. @throws DiskError ENOSPC. */
export function preallocate(fd: number, length: number): void {
  call(fd, 0, 0, length, `cannot take ${length} bytes of space`);
}

/** Gives the space of a range back; it reads as zero afterwards. */
export function punchHole(fd: number, offset: number, length: number): void {
  const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  call(fd, mode, offset, length, `cannot punch ${length} bytes at ${offset}`);
}

/** Makes a range read as zero while it keeps its space. */
export function zeroRange(fd: number, offset: number, length: number): void {
  const mode = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
  call(fd, mode, offset, length, `cannot zero ${length} bytes at ${offset}`);
}
