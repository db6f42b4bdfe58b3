/** Reading a file through a mapping of it, which Node cannot by itself. */
import koffi from 'koffi';

const PROT_READ = 1;
const MAP_SHARED = 1;

const libc = koffi.load(null);
const mmap = libc.func(
  'int64_t mmap(void *address, size_t length, int protection, int flags, int fd, int64_t offset)',
);
const munmap = libc.func('int munmap(int64_t address, size_t length)');
const memcpy = libc.func('int64_t memcpy(_Out_ void *to, int64_t from, size_t length)');

/**
 * A shared, read-only mapping of the first `length` bytes of an open file.
 *
 * @param {number} fd may be closed afterwards
 * @param {number} length bytes
 */
export function mapFile(fd, length) {
  const address = mmap(null, length, PROT_READ, MAP_SHARED, fd, 0);
  if (Number(address) === -1) throw new Error(`mmap: errno ${koffi.errno()}`);
  return {
    read() {
      const bytes = Buffer.alloc(length);
      memcpy(bytes, address, length);
      return bytes;
    },
    unmap() {
      if (munmap(address, length) !== 0) throw new Error(`munmap: errno ${koffi.errno()}`);
    },
  };
}
