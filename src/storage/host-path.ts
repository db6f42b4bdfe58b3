/** Questions about files by their path, before or without opening them. */
import { readdirSync, realpathSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { DiskError, errnoName } from '../common/errors.js';

/** What tells one state of a file from another. */
export interface FileState {
  /** Device and inode together are one file, by whatever path. */
  readonly device: bigint;
  readonly inode: bigint;
  /** Bytes. */
  readonly size: number;
  /** Nanoseconds since 1970. */
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
  /** A regular file. */
  readonly isFile: boolean;
}

/**
 * The state of the file that `path` leads to, links followed. @throws DiskError `not-found`, ...
 */
export function fileState(path: string): FileState {
  return orDiskError(path, () => {
    const stat = statSync(path, { bigint: true });
    const { dev, ino, size, mtimeNs, ctimeNs } = stat;
    const isFile = stat.isFile();
    return { device: dev, inode: ino, size: Number(size), mtimeNs, ctimeNs, isFile };
  });
}

/** The absolute path of a file, free of links. @throws DiskError `not-found`, ... */
export function realPath(path: string): string {
  return orDiskError(path, () => realpathSync.native(path));
}

/** The folder in which a file really lies. @throws DiskError `not-found`, ... */
export function realFolder(path: string): string {
  return dirname(realPath(path));
}

/**
 * Paths of what lies in a folder under names that end in `extension` (lower case, with the dot;
 * names in any case), sorted, at most `limit`.
 * @throws DiskError `not-found`, ...
 */
export function pathsIn(folder: string, extension: string, limit: number): string[] {
  const names = orDiskError(folder, () => readdirSync(folder));
  return names
    .filter((name) => name.toLowerCase().endsWith(extension))
    .sort()
    .slice(0, limit)
    .map((name) => join(folder, name));
}

function orDiskError<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    const errno = errnoName(error) ?? 'EIO';
    const options = { errno, cause: error };
    if (errno === 'ENOENT' || errno === 'ENOTDIR') {
      throw new DiskError('not-found', `${path}: no such file or folder`, options);
    }
    if (errno === 'EACCES' || errno === 'EPERM') {
      throw new DiskError('not-permitted', `${path}: no permission to look it up`, options);
    }
    throw new DiskError('failed', `${path}: cannot look it up (${errno})`, options);
  }
}
