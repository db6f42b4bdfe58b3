/**
 * Foreign calls: every C function that Node lacks, through koffi. The only file that imports koffi.
 *
 * Works on the main thread and in workers. What is Linux only throws ENOSYS elsewhere.
 * INVARIANT: a buffer whose address is handed to C is held in a variable until the call has
 * returned.
 */
import { constants } from 'node:os';
import { getSystemErrorName } from 'node:util';
import koffi, { type LibraryHandle } from 'koffi';

/** A failed foreign call, shaped like the errors of `node:fs`: `errnoName()` understands it. */
export class SystemCallError extends Error {
  /** POSIX name (`ENOSPC`). */
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;

  constructor(syscall: string, errno: number) {
    const code = getSystemErrorName(-errno);
    super(`${code}: ${syscall}`);
    this.name = 'SystemCallError';
    this.code = code;
    this.errno = errno;
    this.syscall = syscall;
  }
}

export const FALLOC_FL_KEEP_SIZE = 0x01;
export const FALLOC_FL_PUNCH_HOLE = 0x02;
export const FALLOC_FL_ZERO_RANGE = 0x10;

export const SEEK_DATA = 3;
export const SEEK_HOLE = 4;

export const LOCK_SH = 1;
export const LOCK_EX = 2;
const LOCK_NB = 4;

export const MS_NOSUID = 0x02;
export const MS_NODEV = 0x04;

export const MNT_FORCE = 1;
export const MNT_DETACH = 2;
export const UMOUNT_NOFOLLOW = 8;

export const M_TRIM_THRESHOLD = -1;
export const M_MMAP_THRESHOLD = -3;

/** SYNC_FILE_RANGE_WAIT_BEFORE, _WRITE and _WAIT_AFTER. */
const WRITE_AND_WAIT = 1 | 2 | 4;

const AT_FDCWD = -100;
const AT_SYMLINK_FOLLOW = 0x400;

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0x80000;
const MSG_CMSG_CLOEXEC = 0x40000000;
const MSG_NOSIGNAL = 0x4000;
const MFD_CLOEXEC = 1;
const [POLLERR, POLLHUP, POLLNVAL] = [0x08, 0x10, 0x20] as const;
export const SOL_SOCKET = 1;
export const SCM_RIGHTS = 1;

/**
 * `NULL` loads the running program, which has the C library in it: no name to guess (glibc,
 * musl, macOS).
 */
const libc = koffi.load(null);

const posix = {
  flock: libc.func('int flock(int fd, int operation)'),
  lseek: libc.func('int64_t lseek(int fd, int64_t offset, int whence)'),
  ioctlBuffer: libc.func('int ioctl(int fd, unsigned long request, _Inout_ void *argument)'),
  // Fewer than 2^31 bytes a call, so the answer fits an int, which costs less to bring over.
  read: libc.func('int read(int fd, int64_t buffer, int64_t length)'),
  write: libc.func('int write(int fd, int64_t buffer, int64_t length)'),
  pread: libc.func('int pread(int fd, int64_t buffer, int64_t length, int64_t offset)'),
  pwrite: libc.func('int pwrite(int fd, int64_t buffer, int64_t length, int64_t offset)'),
  socketpair: libc.func('int socketpair(int domain, int type, int protocol, _Out_ int *pair)'),
  poll: libc.func('int poll(_Inout_ void *files, unsigned long count, int timeout)'),
  exit: libc.func('void _exit(int status)'),
};

const linux =
  process.platform === 'linux'
    ? {
        fallocate: libc.func('int fallocate(int fd, int mode, int64_t offset, int64_t length)'),
        linkat: libc.func('int linkat(int from, str path, int to, str name, int flags)'),
        sync_file_range: libc.func(
          'int sync_file_range(int fd, int64_t offset, int64_t length, uint flags)',
        ),
        mount: libc.func(
          'int mount(str source, str target, str type, unsigned long flags, str data)',
        ),
        umount2: libc.func('int umount2(str target, int flags)'),
        recvmsg: libc.func('int64_t recvmsg(int fd, _Inout_ void *message, int flags)'),
        sendmsg: libc.func('int64_t sendmsg(int fd, void *message, int flags)'),
        memfd_create: libc.func('int memfd_create(str name, uint flags)'),
      }
    : undefined;

/** @throws SystemCallError ENOSYS where the host is not Linux. */
function onLinux(syscall: string): NonNullable<typeof linux> {
  if (linux === undefined) throw new SystemCallError(syscall, constants.errno.ENOSYS);
  return linux;
}

/** A call on a pool thread, whose answer is an int. */
function onPool(
  syscall: string,
  call: (done: (failure: unknown, result: number) => void) => void,
): Promise<void> {
  return new Promise((resolve, reject) => {
    call((failure, result) => {
      if (failure) reject(failure);
      else if (result < 0) reject(new SystemCallError(syscall, koffi.errno()));
      else resolve();
    });
  });
}

/** Must be the first thing after a call: the next foreign call overwrites errno. */
function check(result: number | bigint, syscall: string): number {
  if (result < 0) throw new SystemCallError(syscall, koffi.errno());
  return Number(result);
}

/**
 * The plain calls on memory by its address: only for `positioned-io.ts`, which knows whose memory
 * it is. Lengths are below 2^31.
 */
export const systemIo = {
  read(fd: number, address: number, length: number): number {
    let count = -1;
    do count = posix.read(fd, address, length);
    while (count < 0 && interrupted('read'));
    return count;
  },
  write(fd: number, address: number, length: number): number {
    let count = -1;
    do count = posix.write(fd, address, length);
    while (count < 0 && interrupted('write'));
    return count;
  },
  pread(fd: number, address: number, length: number, offset: number): number {
    let count = -1;
    do count = posix.pread(fd, address, length, offset);
    while (count < 0 && interrupted('pread'));
    return count;
  },
  pwrite(fd: number, address: number, length: number, offset: number): number {
    let count = -1;
    do count = posix.pwrite(fd, address, length, offset);
    while (count < 0 && interrupted('pwrite'));
    return count;
  },
};

/**
 * After a failed call: whether a signal came before it moved a byte, so that it is to be made
 * again, as `node:fs` does. @throws SystemCallError for every other failure.
 */
function interrupted(syscall: string): true {
  const errno = koffi.errno();
  if (errno !== constants.errno.EINTR) throw new SystemCallError(syscall, errno);
  return true;
}

/** fallocate(2); `mode` is a sum of FALLOC_FL_*, offset and length are bytes. */
export function fallocate(fd: number, mode: number, offset: number, length: number): void {
  check(onLinux('fallocate').fallocate(fd, mode, offset, length), 'fallocate');
}

/** linkat(2) that follows links: `from` may be a descriptor's path in /proc. */
export function linkFollowing(from: string, to: string): void {
  const { linkat } = onLinux('linkat');
  check(linkat(AT_FDCWD, from, AT_FDCWD, to, AT_SYMLINK_FOLLOW), 'linkat');
}

/** lseek(2); answers the offset. @throws SystemCallError ENXIO past the end. */
export function lseek(fd: number, offset: number, whence: number): number {
  return check(posix.lseek(fd, offset, whence), 'lseek');
}

/**
 * Takes a lock (LOCK_SH, LOCK_EX) without waiting; false when somebody else has it.
 */
export function flock(fd: number, operation: number): boolean {
  if (posix.flock(fd, operation | LOCK_NB) === 0) return true;
  const errno = koffi.errno();
  if (errno === constants.errno.EWOULDBLOCK) return false;
  throw new SystemCallError('flock', errno);
}

/**
 * ioctl(2) whose argument is a structure, read and written in place (LOOP_CONFIGURE,
 * FICLONERANGE).
 */
export function ioctlBuffer(fd: number, request: number, argument: Buffer): number {
  return check(posix.ioctlBuffer(fd, request, argument), 'ioctl');
}

/**
 * sync_file_range(2) on a pool thread, over the whole file: what is dirty in the page cache is
 * handed to the file system and that has it when this resolves. It need not be durable; the inode
 * is not locked, so that writers do not hold it up.
 */
export function writeBack(fd: number): Promise<void> {
  const call = onLinux('sync_file_range').sync_file_range;
  return onPool('sync_file_range', (done) => call.async(fd, 0, 0, WRITE_AND_WAIT, done));
}

export interface MountCall {
  readonly source: string;
  readonly target: string;
  readonly type: string;
  /** Sum of MS_*. */
  readonly flags: number;
  /** Options of the file system, comma separated. */
  readonly data: string;
}

/** mount(2). */
export function mount(call: MountCall): void {
  const { source, target, type, flags, data } = call;
  check(onLinux('mount').mount(source, target, type, flags, data), 'mount');
}

/** umount2(2) on a pool thread: it may wait for requests that the calling thread has to serve. */
export function umount(target: string, flags: number): Promise<void> {
  const { umount2 } = onLinux('umount2');
  return onPool('umount2', (done) => umount2.async(target, flags, done));
}

/** Two connected stream sockets, close-on-exec. */
export function socketPair(): readonly [number, number] {
  const pair = [-1, -1];
  const type = SOCK_STREAM | (process.platform === 'linux' ? SOCK_CLOEXEC : 0);
  check(posix.socketpair(AF_UNIX, type, 0, pair), 'socketpair');
  return [pair[0] ?? -1, pair[1] ?? -1];
}

/**
 * recvmsg(2) with MSG_CMSG_CLOEXEC; `message` is a struct msghdr that points to memory which the
 * caller holds. @returns bytes of data.
 */
export function receiveMessage(socket: number, message: Buffer): number {
  return check(onLinux('recvmsg').recvmsg(socket, message, MSG_CMSG_CLOEXEC), 'recvmsg');
}

/** sendmsg(2) with MSG_NOSIGNAL; see `receiveMessage`. */
export function sendMessage(socket: number, message: Buffer): void {
  check(onLinux('sendmsg').sendmsg(socket, message, MSG_NOSIGNAL), 'sendmsg');
}

/** Whether what is at the other end of a descriptor is gone: poll(2), without waiting. */
export function isDisconnected(fd: number): boolean {
  // struct pollfd: fd at 0, events at 4, what there is at 6.
  const files = Buffer.alloc(8);
  files.writeInt32LE(fd, 0);
  check(posix.poll(files, 1, 0), 'poll');
  return (files.readInt16LE(6) & (POLLERR | POLLHUP | POLLNVAL)) !== 0;
}

/** A file in memory without a name: it is gone with the last descriptor. Close-on-exec. */
export function memoryFile(name: string): number {
  return check(onLinux('memfd_create').memfd_create(name, MFD_CLOEXEC), 'memfd_create');
}

/** Ends the process at once, whatever its threads are at: `process.exit` waits for them. */
export function exitNow(status: number): void {
  posix.exit(status);
}

/**
 * mallopt(3), with M_*: for the whole process, what is allocated from now on.
 * @returns false where the C library has none (musl) or does not know the parameter.
 */
export function setMallocOption(parameter: number, value: number): boolean {
  let mallopt: (parameter: number, value: number) => number;
  try {
    mallopt = libc.func('int mallopt(int parameter, int value)');
  } catch {
    // The one thing that can be wrong with it: there is no such function.
    return false;
  }
  return mallopt(parameter, value) === 1;
}

/** koffi unloads a library when the object for it is collected: these stay. */
const preloaded = new Map<string, LibraryHandle>();

/**
 * Loads a shared library, so that whatever is loaded later and needs one of its name finds
 * this. It stays loaded as long as the thread lives.
 */
export function preloadLibrary(path: string): void {
  if (!preloaded.has(path)) preloaded.set(path, koffi.load(path));
}

/**
 * Where a buffer's first byte lies in memory: for alignment, and for structures that point to
 * others.
 */
export function addressOf(buffer: Buffer): bigint {
  return BigInt(koffi.address(buffer));
}
