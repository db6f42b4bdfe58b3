/** Using a file through a mapping of it, which Node cannot by itself. */
import koffi from 'koffi';

const PROT_READ = 1;
const PROT_WRITE = 2;
const MAP_SHARED = 1;
const MAP_PRIVATE = 2;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
const MS_SYNC = 4;
const PAGE = 4096;

const libc = koffi.load(null);
const mmap = libc.func(
  'int64_t mmap(int64_t address, size_t length, int protection, int flags, int fd, int64_t offset)',
);
const munmap = libc.func('int munmap(int64_t address, size_t length)');
const msync = libc.func('int msync(int64_t address, size_t length, int flags)');
const memset = libc.func('int64_t memset(int64_t to, int byte, size_t length)');
const memcpy = libc.func('int64_t memcpy(_Out_ void *to, int64_t from, size_t length)');
const memcpyInto = libc.func('int64_t memcpy(int64_t to, const void *from, size_t length)');

/** @returns the address */
function map(address, length, protection, flags, fd, offset) {
  const mapped = mmap(address, length, protection, flags, fd, offset);
  if (Number(mapped) === -1) throw new Error(`mmap: errno ${koffi.errno()}`);
  return mapped;
}

/**
 * A shared, read-only mapping of the first `length` bytes of an open file.
 *
 * @param {number} fd may be closed afterwards
 * @param {number} length bytes
 */
export function mapFile(fd, length) {
  const address = map(0, length, PROT_READ, MAP_SHARED, fd, 0);
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

/**
 * A shared mapping of the first `length` bytes of an open file: what is written stays in the page
 * cache until somebody asks for it, or the kernel decides so.
 */
export function mapForWriting(fd, length) {
  const address = map(0, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  return {
    write(offset, bytes) {
      memcpyInto(Number(address) + offset, bytes, bytes.length);
    },
    unmap() {
      if (munmap(address, length) !== 0) throw new Error(`munmap: errno ${koffi.errno()}`);
    },
  };
}

/**
 * Writes `length` bytes through a shared mapping and maps other memory in its place: the kernel
 * writes back while it holds the memory map of this process.
 *
 * @param {number} fd
 * @param {number} length bytes
 * @param {number} byte the content
 * @param {() => void} onWritten called when the bytes are in the mapping
 */
export function writeByMapping(fd, length, byte, onWritten) {
  const protection = PROT_READ | PROT_WRITE;
  const address = map(0, length, protection, MAP_SHARED, fd, 0);
  memset(address, byte, length);
  onWritten();
  map(address, length, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

/** Maps what holds these bytes for as long as `use` takes, which gets the address of the first. */
function throughMapping(fd, offset, length, protection, use) {
  const from = offset - (offset % PAGE);
  const mapped = offset + length - from;
  const address = Number(map(0, mapped, protection, MAP_SHARED, fd, from));
  use(address + (offset - from), address, mapped);
  if (munmap(address, mapped) !== 0) throw new Error(`munmap: errno ${koffi.errno()}`);
}

/**
 * Fills the first `length` bytes of `into` through a mapping of their own.
 *
 * @param {number} fd
 * @param {number} offset bytes in the file, of any alignment
 * @param {Buffer} into
 * @param {number} length bytes
 */
export function readMapped(fd, offset, into, length) {
  throughMapping(fd, offset, length, PROT_READ, (at) => memcpy(into, at, length));
}

/** Writes likewise; with `sync` it waits until that is in the file, else the kernel decides. */
export function writeMapped(fd, offset, bytes, length, sync) {
  throughMapping(fd, offset, length, PROT_READ | PROT_WRITE, (at, address, mapped) => {
    memcpyInto(at, bytes, length);
    if (!sync) return;
    if (msync(address, mapped, MS_SYNC) !== 0) throw new Error(`msync: errno ${koffi.errno()}`);
  });
}
