/** Calls that concern the page cache of a file, which Node has not. */
import koffi from 'koffi';

const POSIX_FADV_DONTNEED = 4;

const libc = koffi.load(null);
const posix_fadvise = libc.func(
  'int posix_fadvise(int fd, int64_t offset, int64_t length, int advice)',
);
const copy_file_range = libc.func(
  `int64_t copy_file_range(int from, _Inout_ int64_t *at, int to, _Inout_ int64_t *at,
    size_t length, uint flags)`,
);

/**
 * Drops what the kernel keeps of a file; what was not yet written stays.
 *
 * @param {number} fd
 */
export function dropCached(fd) {
  const errno = posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  if (errno !== 0) throw new Error(`posix_fadvise: errno ${errno}`);
}

/**
 * Copies bytes within a file in the kernel; the two places must not overlap.
 *
 * @param {number} fd
 * @param {number} from bytes
 * @param {number} to bytes
 * @param {number} length bytes
 */
export function copyWithin(fd, from, to, length) {
  const [source, target] = [[from], [to]];
  for (let left = length; left > 0; ) {
    const done = Number(copy_file_range(fd, source, fd, target, left, 0));
    if (done <= 0) throw new Error(`copy_file_range: ${done}, errno ${koffi.errno()}`);
    left -= done;
  }
}
