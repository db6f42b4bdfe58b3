/** A host file opened for exact positioned reads: the door through which image bytes come in. */
import { closeSync, constants, fstatSync, openSync, readSync, type Stats } from 'node:fs';
import { DiskError, errnoName } from '../common/errors.js';

/** What a format needs of a file. Tests give it memory instead. */
export interface ReadableFile {
  readonly path: string;
  /** Bytes at the time of opening. */
  readonly size: number;
  /**
   * Reads exactly `length` bytes.
   * @throws DiskError `damaged` (EIO) when the file ends before that; `failed` when the host
   * reports an error.
   */
  readExact(target: Buffer, targetOffset: number, length: number, offset: number): void;
  /** The descriptor for holes and reflinks; -1 where there is none (memory). */
  readonly fd: number;
  close(): void;
}

/** A regular file or block device opened read-only. */
export class HostFile implements ReadableFile {
  readonly path: string;
  readonly fd: number;
  readonly size: number;

  private constructor(path: string, fd: number, size: number) {
    this.path = path;
    this.fd = fd;
    this.size = size;
  }

  /**
   * Opens a regular file read-only, without changing it in any way. Never blocks on a FIFO or a
   * device.
   * @throws DiskError `not-found`, `not-permitted`, or `failed` for what is no regular file.
   */
  static open(path: string): HostFile {
    let fd: number;
    try {
      fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
    } catch (error) {
      throw describeOpenError(path, error);
    }
    let stat: Stats;
    try {
      stat = fstatSync(fd);
      if (!stat.isFile()) {
        const kind = stat.isDirectory() ? 'a directory' : 'not a regular file';
        throw new DiskError('failed', `${path} is ${kind}`, {
          hint: 'give the path of an image file',
        });
      }
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    return new HostFile(path, fd, stat.size);
  }

  readExact(target: Buffer, targetOffset: number, length: number, offset: number): void {
    let done = 0;
    while (done < length) {
      let count: number;
      try {
        count = readSync(this.fd, target, targetOffset + done, length - done, offset + done);
      } catch (error) {
        throw new DiskError('failed', `${this.path}: cannot read ${length} bytes at ${offset}`, {
          errno: errnoName(error) ?? 'EIO',
          cause: error,
        });
      }
      if (count === 0) {
        throw new DiskError(
          'damaged',
          `${this.path}: file ends at ${offset + done}, needed are ${length} bytes at ${offset}`,
          { errno: 'EIO' },
        );
      }
      done += count;
    }
  }

  close(): void {
    closeSync(this.fd);
  }
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
      hint: `check the file's mode and owner: ls -l ${path}`,
    });
  }
  if (errno === 'ENXIO') return new DiskError('failed', `${path} is not a regular file`, options);
  return new DiskError('failed', `${path}: cannot open it (${errno ?? String(error)})`, options);
}
