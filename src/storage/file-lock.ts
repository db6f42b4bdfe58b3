/** A lock file that one process holds as long as it lives, and that says which one. */
import { closeSync, constants, openSync, readFileSync } from 'node:fs';
import { DiskError, errnoName } from '../common/errors.js';
import { writeExact } from './exact-io.js';
import { hostCalls } from './host-calls.js';
import { flock, LOCK_EX } from './libc.js';

/**
 * Held by flock(2): the kernel drops it when the process dies, so a lock file that was left behind
 * locks nothing. The file itself is never removed: that would let two processes lock two files.
 */
export class FileLock {
  readonly #fd: number;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /**
   * @param what names the locked thing in the error.
   * @throws DiskError `busy` naming the process that holds it; `failed` or `not-permitted` when the
   * file can't be made.
   */
  static acquire(path: string, what: string): FileLock {
    const fd = openLockFile(path);
    try {
      lock(fd, path, what);
      writeHolder(fd);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    return new FileLock(fd);
  }

  /** A lock that this process was handed: `fd` shares the open file of the one who took it. */
  static inherit(fd: number): FileLock {
    try {
      writeHolder(fd);
    } catch {
      // A full disk, say. It is for people only, and a store in use is not given up for it.
    }
    return new FileLock(fd);
  }

  /** Whoever holds a copy of it holds the lock. */
  get descriptor(): number {
    return this.#fd;
  }

  release(): void {
    closeSync(this.#fd);
  }
}

function openLockFile(path: string): number {
  try {
    return openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600);
  } catch (error) {
    const errno = errnoName(error) ?? 'EIO';
    const code = errno === 'EACCES' || errno === 'EROFS' ? 'not-permitted' : 'failed';
    const hint =
      errno === 'EROFS' ? 'its file system is read-only: remount it, or take another' : '';
    throw new DiskError(code, `cannot open the lock file ${path} (${errno})`, {
      errno,
      ...(hint === '' ? {} : { hint }),
    });
  }
}

function writeHolder(fd: number): void {
  hostCalls.truncate(fd, 0, 'lock.truncate');
  const holder = { pid: process.pid, started: new Date().toISOString() };
  const text = Buffer.from(`${JSON.stringify(holder)}\n`);
  writeExact(fd, text, 0, text.length, 0, 'lock.write');
}

function lock(fd: number, path: string, what: string): void {
  let isOurs: boolean;
  try {
    isOurs = flock(fd, LOCK_EX);
  } catch (error) {
    const errno = errnoName(error) ?? 'EIO';
    throw new DiskError('failed', `cannot lock ${path} (${errno})`, { errno, cause: error });
  }
  if (isOurs) return;
  throw new DiskError('busy', `${what} is in use by ${holderOf(path)}`, {
    hint: 'stop that one first: layerdisk daemon stop',
  });
}

/** `process 123 (since ...)`, as the lock file says; for people, not for decisions. */
function holderOf(path: string): string {
  try {
    const holder: unknown = JSON.parse(readFileSync(path, 'utf8'));
    if (typeof holder === 'object' && holder !== null && 'pid' in holder && 'started' in holder) {
      return `process ${String(holder.pid)} (since ${String(holder.started)})`;
    }
  } catch {
    // The other process may be writing it just now; that it holds the lock is what counts.
  }
  return 'another process';
}
