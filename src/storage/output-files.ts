/**
 * Files that are made whole or not at all: written without names, then synced and given their names
 * together, the main one last. So nothing is left of them when this process is killed. Where the
 * file system has no files without names they have hidden ones beside their places meanwhile. What
 * was there before is kept unless the caller allows otherwise.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, existsSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { DiskError, errnoName } from '../common/errors.js';
import { ZEROES } from '../common/zeroes.js';
import { fileId } from './file-id.js';
import { syncFolderNow } from './folder-sync.js';
import { hostCalls } from './host-calls.js';
import { descriptorPath } from './nameless-file.js';
import { isUnknownCall, NOT_SUPPORTED } from './sparse-space.js';

/** One file under construction. Offsets and lengths are bytes. */
export class OutputFile {
  /** The name that it will have. */
  readonly path: string;
  readonly fd: number;
  /** By which this process can open it before it has its name. */
  readonly temporaryPath: string;
  /** What it is called in its folder before. */
  #hidden: string | undefined;
  /** Where it begins in what `fd` has open. */
  readonly #start: number;

  constructor(
    path: string,
    place: { fd: number; temporaryPath: string; start?: number; hidden?: string },
  ) {
    this.path = path;
    this.fd = place.fd;
    this.temporaryPath = place.temporaryPath;
    this.#start = place.start ?? 0;
    this.#hidden = place.hidden;
  }

  /** A new file that nobody sees yet. */
  static make(path: string): OutputFile {
    try {
      const nameless = hostCalls.createNameless(dirname(path), 'image.create');
      if (nameless !== undefined) {
        return new OutputFile(path, { fd: nameless, temporaryPath: descriptorPath(nameless) });
      }
      const hidden = hiddenName(path);
      const fd = hostCalls.create(hidden, 'wx+', 'image.create');
      return new OutputFile(path, { fd, temporaryPath: hidden, hidden });
    } catch (error) {
      throw failure(path, 'cannot make this file', error);
    }
  }

  /** @throws DiskError with the host's errno (ENOSPC, EIO, EFBIG). */
  write(source: Buffer, sourceOffset: number, length: number, offset: number): void {
    let done = 0;
    const start = this.#start + offset;
    try {
      while (done < length) {
        const at = sourceOffset + done;
        done += hostCalls.write(this.fd, source, at, length - done, start + done, 'image.write');
      }
    } catch (error) {
      throw failure(this.path, `cannot write ${length} bytes at ${offset}`, error);
    }
  }

  /** Gives it its name unless that is taken, and then fails with EEXIST. */
  name(): void {
    if (this.#hidden === undefined) {
      hostCalls.nameOpen(this.fd, this.path, 'image.link');
      return;
    }
    // Unlike rename(2), link(2) never replaces what came there meanwhile.
    hostCalls.link(this.#hidden, this.path, 'image.link');
    hostCalls.unlink(this.#hidden, 'image.unlink');
  }

  /** Gives it its name, whatever has that. */
  replace(): void {
    if (this.#hidden === undefined) {
      const hidden = hiddenName(this.path);
      hostCalls.nameOpen(this.fd, hidden, 'image.link');
      this.#hidden = hidden;
    }
    hostCalls.rename(this.#hidden, this.path, 'image.rename');
  }

  /** Without its name it is gone with this. @throws Error of the host. */
  remove(): void {
    closeSync(this.fd);
    if (this.#hidden !== undefined) hostCalls.unlink(this.#hidden, 'image.abandon');
  }

  /** Sets the file's size; what it grows by is a hole. */
  truncate(size: number): void {
    try {
      hostCalls.truncate(this.fd, this.#start + size, 'image.truncate');
    } catch (error) {
      throw failure(this.path, `cannot set its size to ${size} bytes`, error);
    }
  }

  /** Takes space on the host for the first `size` bytes, and makes the file that large. */
  allocate(size: number): void {
    try {
      hostCalls.allocate(this.fd, 0, this.#start, size, 'image.allocate');
    } catch (error) {
      if (!isUnknownCall(error)) {
        throw failure(this.path, `cannot take ${size} bytes of space`, error);
      }
      this.#fillWithZeroes(size);
    }
  }

  /** What takes space on every host (ext3, NFS 3 and others have no fallocate). */
  #fillWithZeroes(size: number): void {
    for (let at = 0; at < size; at += ZEROES.length) {
      this.write(ZEROES, 0, Math.min(ZEROES.length, size - at), at);
    }
  }
}

export interface OutputOptions {
  /** Whether what is there already may be replaced. */
  readonly overwrite?: boolean;
  /** `fileId`s of files that are not replaced even then. */
  readonly spared?: ReadonlySet<string>;
}

/**
 * INVARIANT: nothing has its final name before everything is synced; after `discard` nothing is
 * left.
 */
export class OutputFiles {
  /** The main file. */
  readonly path: string;
  readonly #overwrite: boolean;
  readonly #spared: ReadonlySet<string>;
  readonly #files: OutputFile[] = [];
  readonly #paths: string[] = [];

  /** @throws DiskError `exists` when the main file is there and may not be replaced. */
  constructor(path: string, options: OutputOptions = {}) {
    this.path = path;
    this.#overwrite = options.overwrite === true;
    this.#spared = options.spared ?? new Set();
    this.#checkFree(path);
  }

  /** The names of all files, in the order in which they were begun. */
  get paths(): readonly string[] {
    return this.#paths;
  }

  /** A new file; `path` is the main one's or lies in its folder. */
  create(path: string): OutputFile {
    this.#checkFree(path);
    const file = OutputFile.make(path);
    this.#files.push(file);
    this.#paths.push(path);
    return file;
  }

  /** Makes everything durable under its name. On failure the caller still has to `discard`. */
  commit(): void {
    const last = (file: OutputFile) => (file.path === this.path ? 1 : 0);
    this.#files.sort((a, b) => last(a) - last(b));
    for (const file of this.#files) {
      try {
        hostCalls.sync(file.fd, 'image.sync');
      } catch (error) {
        throw failure(file.path, 'cannot be made durable', error);
      }
    }
    const named: OutputFile[] = [];
    try {
      for (const file of this.#files) {
        this.#giveName(file);
        named.push(file);
      }
    } catch (error) {
      // A part without its main file would be half an image.
      if (!this.#overwrite) for (const file of named) hostCalls.unlink(file.path, 'image.abandon');
      throw error;
    }
    syncFolder(dirname(this.path));
    for (const file of this.#files.splice(0)) closeSync(file.fd);
  }

  /** Removes what was made. Harmless after `commit`. */
  discard(): void {
    let problem: DiskError | undefined;
    for (const file of this.#files.splice(0)) {
      try {
        file.remove();
      } catch (error) {
        // It has its name already, or somebody else removed it: nothing of ours is left.
        if (errnoName(error) !== 'ENOENT') {
          problem ??= failure(file.temporaryPath, 'cannot be removed', error);
        }
      }
    }
    if (problem !== undefined) throw problem;
  }

  #giveName(file: OutputFile): void {
    try {
      if (this.#overwrite) file.replace();
      else file.name();
    } catch (error) {
      const errno = errnoName(error);
      if (errno === 'EEXIST') throw exists(file.path);
      // FAT and some network file systems know no second name.
      if (errno === 'EPERM' || errno === NOT_SUPPORTED) this.#renameIfFree(file);
      else throw failure(file.path, 'cannot be given its name', error);
    }
  }

  #renameIfFree(file: OutputFile): void {
    this.#checkFree(file.path);
    try {
      file.replace();
    } catch (error) {
      throw failure(file.path, 'cannot be given its name', error);
    }
  }

  #checkFree(path: string): void {
    if (this.#spared.size > 0 && this.#spared.has(fileId(path) ?? '')) throw spared(path);
    if (!this.#overwrite && existsSync(path)) throw exists(path);
  }
}

function hiddenName(path: string): string {
  return join(dirname(path), `.${basename(path)}.${randomBytes(4).toString('hex')}.part`);
}

function syncFolder(path: string): void {
  try {
    syncFolderNow(path, 'image.sync-folder');
  } catch (error) {
    throw failure(path, 'cannot be made durable', error);
  }
}

export function spared(path: string): DiskError {
  return new DiskError('exists', `${path} belongs to the base image of a VM`, {
    hint: 'choose another name: base images are never replaced',
  });
}

export function exists(path: string): DiskError {
  return new DiskError('exists', `${path} exists already`, {
    hint: 'choose another name, or pass --force to replace it',
  });
}

const HINTS: Readonly<Record<string, string>> = {
  ENOSPC: 'make room on that file system, or choose another',
  ENAMETOOLONG: 'choose a shorter name',
  EFBIG: 'that file system holds no file so large: choose another, or a format that is not flat',
  EROFS: 'that file system is read-only: choose another, or remount it',
};

/** What an error of the host becomes that met the making of a file. */
export function failure(path: string, what: string, error: unknown): DiskError {
  if (error instanceof DiskError) return error;
  const errno = errnoName(error);
  const code = errno === 'EACCES' || errno === 'EPERM' ? 'not-permitted' : 'failed';
  const hint = errno === undefined ? undefined : HINTS[errno];
  return new DiskError(code, `${path}: ${what} (${errno ?? String(error)})`, {
    ...(errno === undefined ? {} : { errno }),
    ...(hint === undefined ? {} : { hint }),
    cause: error,
  });
}
