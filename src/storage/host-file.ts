/** A host file opened for exact positioned reads: the door through which image bytes come in. */
import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import { DiskError, errnoName } from '../common/errors.js';
import { shellWord } from '../common/shell-word.js';
import { readAt } from './positioned-io.js';

/** Part of a file that stands for a whole one: a member of an archive, read where it lies. */
export interface FileWindow {
  /** Bytes. */
  readonly offset: number;
  readonly length: number;
}

/** What a format needs of a file. Tests give it memory instead. */
export interface ReadableFile {
  readonly path: string;
  /** Bytes at the time of opening; of the window, where there is one. */
  readonly size: number;
  /**
   * Reads exactly `length` bytes.
   * @throws DiskError `damaged` (EIO) when the file ends before that; `failed` when the host
   * reports an error.
   */
  readExact(target: Buffer, targetOffset: number, length: number, offset: number): void;
  /** The descriptor for holes and reflinks; -1 where there is none (memory, windows). */
  readonly fd: number;
  close(): void;
}

/**
 * A regular file opened read-only, or a window into one.
 *
 * INVARIANT: nothing outside the window is ever read.
 */
export class HostFile implements ReadableFile {
  readonly path: string;
  readonly fd: number;
  readonly size: number;
  readonly #descriptor: number;
  /** Where offset 0 lies in the file. */
  readonly #start: number;

  private constructor(path: string, descriptor: number, size: number, start?: number) {
    this.path = path;
    this.fd = start === undefined ? descriptor : -1;
    this.size = size;
    this.#descriptor = descriptor;
    this.#start = start ?? 0;
  }

  /**
   * Opens a regular file read-only, without changing it in any way. Never blocks on a FIFO or a
   * device.
   * @throws DiskError `not-found`, `not-permitted`, or `failed` for what is no regular file;
   * `damaged` when the file ends before the window does.
   */
  static open(path: string, window?: FileWindow): HostFile {
    let fd: number;
    try {
      fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
    } catch (error) {
      throw describeOpenError(path, error);
    }
    try {
      const stat = fstatSync(fd);
      if (!stat.isFile()) {
        const kind = stat.isDirectory() ? 'a directory' : 'not a regular file';
        throw new DiskError('failed', `${path} is ${kind}`, {
          hint: 'give the path of an image file',
        });
      }
      if (window === undefined) return new HostFile(path, fd, stat.size);
      checkWindow(path, window, stat.size);
      return new HostFile(path, fd, window.length, window.offset);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  readExact(target: Buffer, targetOffset: number, length: number, offset: number): void {
    // Only a window needs the check: what lies behind a file's end can't be read anyway.
    if (this.fd < 0 && offset + length > this.size) throw this.#ended(this.size, length, offset);
    const start = this.#start + offset;
    let done = 0;
    while (done < length) {
      let count: number;
      try {
        const at = targetOffset + done;
        count = readAt(this.#descriptor, target, at, length - done, start + done);
      } catch (error) {
        throw new DiskError('failed', `${this.path}: cannot read ${length} bytes at ${offset}`, {
          errno: errnoName(error) ?? 'EIO',
          cause: error,
        });
      }
      if (count === 0) throw this.#ended(offset + done, length, offset);
      done += count;
    }
  }

  close(): void {
    closeSync(this.#descriptor);
  }

  #ended(end: number, length: number, offset: number): DiskError {
    return new DiskError(
      'damaged',
      `${this.path}: file ends at ${end}, needed are ${length} bytes at ${offset}`,
      { errno: 'EIO' },
    );
  }
}

function checkWindow(path: string, { offset, length }: FileWindow, size: number): void {
  if (offset + length <= size) return;
  throw new DiskError(
    'damaged',
    `${path}: file ends at ${size}, needed are ${length} bytes at ${offset}`,
    { errno: 'EIO' },
  );
}

function describeOpenError(path: string, error: unknown): DiskError {
  const errno = errnoName(error);
  const options = errno === undefined ? { cause: error } : { errno, cause: error };
  if (errno === 'ENOENT' || errno === 'ENOTDIR') {
    return new DiskError('not-found', `${path}: no such file`, options);
  }
  if (errno === 'EACCES' || errno === 'EPERM') {
    return new DiskError('not-permitted', `${path}: no permission to read it`, {
      ...options,
      hint: `check the file's mode and owner: ls -l ${shellWord(path)}`,
    });
  }
  if (errno === 'ENXIO') return new DiskError('failed', `${path} is not a regular file`, options);
  return new DiskError('failed', `${path}: cannot open it (${errno ?? String(error)})`, options);
}
