/**
 * A folder that one process holds as long as it lives, and a lock file in it that says which one,
 * and whether it let go in order.
 */
import { closeSync, constants, fstatSync, openSync, readSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { DiskError, errnoName } from '../common/errors.js';
import { OWNER_HINT, writeExact } from './exact-io.js';
import { hostCalls } from './host-calls.js';
import { flock, LOCK_EX } from './libc.js';

/** Descriptors that hold a lock; copies of them hold it, too. */
export interface HeldLock {
  readonly file: number;
  /** Undefined where the host cannot lock folders. */
  readonly folder: number | undefined;
}

/** What the lock file says. */
interface Note {
  readonly pid: number;
  readonly started: string;
  /** Whether its writer still holds the lock, or died with it. */
  readonly held: boolean;
  /** Of the lock file itself: a copy has others. Nanoseconds, in decimal digits like the number. */
  readonly inode: string;
  readonly born: string;
}

/** Always as long, padded: a full disk has room for the second one where the first one was. */
const NOTE_BYTES = 256;

/**
 * Held by flock(2): the kernel drops it when the process dies, so a lock file that was left behind
 * locks nothing. The folder is locked beside the file, because somebody may remove the file.
 */
export class FileLock {
  readonly #held: HeldLock;
  #note: Note | undefined;
  /**
   * Whether the lock file is a copy of one that was held when it was copied, or whose holder died.
   */
  readonly copiedWhileHeld: boolean;

  private constructor(held: HeldLock) {
    this.#held = held;
    this.copiedWhileHeld = isCopy(held.file);
  }

  /**
   * Takes the lock and writes nothing yet.
   * @param what names the locked thing in the error.
   * @throws DiskError `busy` naming the process that holds it; `failed` or `not-permitted` when the
   * file can't be made.
   */
  static acquire(path: string, what: string): FileLock {
    const file = openLockFile(path);
    try {
      if (!lock(file, path)) throw busy(file, what);
      return new FileLock({ file, folder: lockFolder(dirname(path), what) });
    } catch (error) {
      closeSync(file);
      throw error;
    }
  }

  /** A lock that this process was handed: the descriptors are those of the one who took it. */
  static inherit(held: HeldLock): FileLock {
    const inherited = new FileLock(held);
    inherited.claim();
    return inherited;
  }

  /** Whoever holds copies of these holds the lock. */
  get descriptors(): HeldLock {
    return this.#held;
  }

  /** Writes down who holds it. */
  claim(): void {
    const { ino, birthtimeNs } = fstatSync(this.#held.file, { bigint: true });
    const started = new Date().toISOString();
    const self = { inode: String(ino), born: String(birthtimeNs) };
    this.#write({ pid: process.pid, started, held: true, ...self });
  }

  release(): void {
    if (this.#note !== undefined) this.#write({ ...this.#note, held: false });
    // The folder first: who finds it held and the file free would take that file for a new one.
    if (this.#held.folder !== undefined) closeSync(this.#held.folder);
    closeSync(this.#held.file);
  }

  #write(note: Note): void {
    this.#note = note;
    const text = Buffer.from(`${JSON.stringify(note).padEnd(NOTE_BYTES - 1)}\n`);
    try {
      writeExact(this.#held.file, text, 0, text.length, 0, 'lock.write');
      if (fstatSync(this.#held.file).size > text.length) {
        hostCalls.truncate(this.#held.file, text.length, 'lock.truncate');
      }
    } catch {
      // A full disk, say. It is for people and for copies, and a store is not given up for it.
    }
  }
}

const LOCK_HINTS: Readonly<Record<string, string>> = {
  EACCES: OWNER_HINT,
  EROFS: 'its file system is read-only: remount it, or copy the store',
};

function openLockFile(path: string): number {
  try {
    return openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600);
  } catch (error) {
    const errno = errnoName(error) ?? 'EIO';
    const code = errno === 'EACCES' || errno === 'EROFS' ? 'not-permitted' : 'failed';
    const hint = LOCK_HINTS[errno];
    throw new DiskError(code, `cannot open the lock file ${path} (${errno})`, {
      errno,
      ...(hint === undefined ? {} : { hint }),
    });
  }
}

/** @returns whether it is ours now. */
function lock(fd: number, path: string): boolean {
  try {
    return flock(fd, LOCK_EX);
  } catch (error) {
    const errno = errnoName(error) ?? 'EIO';
    throw new DiskError('failed', `cannot lock ${path} (${errno})`, { errno, cause: error });
  }
}

/** @throws DiskError `busy`: somebody holds the folder although the file in it is another one. */
function lockFolder(path: string, what: string): number | undefined {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  let isOurs: boolean;
  try {
    isOurs = flock(fd, LOCK_EX);
  } catch {
    // NFS locks no folders. The file is locked.
    closeSync(fd);
    return undefined;
  }
  if (isOurs) return fd;
  closeSync(fd);
  throw new DiskError('busy', `${what} is in use by another process`, {
    hint: `its lock file was removed; this names that process: fuser -v ${path}`,
  });
}

/**
 * A path may lead to another folder by now than the one that is locked, or nowhere.
 * @param folder a descriptor of the one that is locked.
 * @throws DiskError `failed`.
 */
export function requireHeldFolder(path: string, folder: number): void {
  const held = fstatSync(folder);
  const found = statSync(path, { throwIfNoEntry: false });
  if (found?.ino === held.ino && found.dev === held.dev) return;
  const what = found === undefined ? 'is not there any more' : 'is another folder than before';
  throw new DiskError('failed', `${path} ${what}`, {
    hint: 'somebody moved it, or mounted or unmounted a file system there: put it back',
  });
}

function isCopy(fd: number): boolean {
  const note = readNote(fd);
  if (note?.held !== true) return false;
  const { ino, birthtimeNs, ctimeNs } = fstatSync(fd, { bigint: true });
  if (note.inode !== String(ino)) return true;
  // Where a file system knows no time of birth, it looks like the last change.
  return birthtimeNs !== ctimeNs && note.born !== String(birthtimeNs);
}

/** @returns undefined when there is none that can be read. */
function readNote(fd: number): Partial<Note> | undefined {
  const bytes = Buffer.alloc(2 * NOTE_BYTES);
  try {
    const length = readSync(fd, bytes, 0, bytes.length, 0);
    const note: unknown = JSON.parse(bytes.toString('utf8', 0, length));
    return typeof note === 'object' && note !== null ? note : undefined;
  } catch {
    // Nothing, or torn: nothing is known then.
    return undefined;
  }
}

/** `process 123 (since ...)`, as the lock file says; for people, not for decisions. */
function busy(fd: number, what: string): DiskError {
  const { pid, started } = readNote(fd) ?? {};
  // The other process may be writing it just now; that it holds the lock is what counts.
  const isKnown = pid !== undefined && started !== undefined;
  const holder = isKnown ? `process ${pid} (since ${started})` : 'another process';
  const orElse = isKnown ? `; if that does not answer: kill ${pid}` : '';
  return new DiskError('busy', `${what} is in use by ${holder}`, {
    hint: `stop that one first: layerdisk daemon stop${orElse}`,
  });
}
