/** Small files and folders: read, listed and removed as wholes. */
import { closeSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { realpath, stat } from 'node:fs/promises';
import { errnoName } from '../common/errors.js';
import { hostCalls } from './host-calls.js';
import { openStored } from './stored-file.js';

/**
 * A whole file as text; undefined when there is none. Synchronous: the answer is of this instant.
 * @throws the host's error when it can't be read; DiskError for what is no regular file.
 */
export function readText(path: string): string | undefined {
  return unlessMissing(() => {
    const fd = openStored(path, 'r');
    try {
      return readFileSync(fd, 'utf8');
    } finally {
      closeSync(fd);
    }
  });
}

/** Names in a folder; undefined when there is no such folder. @throws the host's error. */
export function listFolder(path: string): string[] | undefined {
  return unlessMissing(() => readdirSync(path));
}

/** Removes a file at once; one that is not there is no error. @throws the host's error. */
export function removeFile(path: string, label: string): void {
  unlessMissing(() => hostCalls.unlink(path, label));
}

/** When a file was last written, milliseconds since the epoch; undefined when there is none. */
export function fileTime(path: string): number | undefined {
  return unlessMissing(() => statSync(path).mtimeMs);
}

/** Bytes of a file; undefined when there is none. */
export function fileSize(path: string): number | undefined {
  return unlessMissing(() => statSync(path).size);
}

export interface FileFacts {
  /** Bytes that it takes on the host. */
  readonly storedSize: number;
  /** When it was last written, moved or renamed: milliseconds since the epoch. */
  readonly changed: number;
}

/** @returns undefined when there is no such file. @throws the host's error. */
export async function describeFile(path: string): Promise<FileFacts | undefined> {
  try {
    const { blocks, ctimeMs } = await stat(path);
    return { storedSize: blocks * 512, changed: ctimeMs };
  } catch (error) {
    if (errnoName(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** Removes a file or a folder with all that is in it, for good. @throws the host's error. */
export async function removeTree(path: string, label: string): Promise<void> {
  await hostCalls.removeTree(path, label);
}

/** The path with all symbolic links resolved; as it is when there is nothing at it. */
export async function resolveLinks(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch {
    // Whoever opens it next says what is wrong with it, and better.
    return path;
  }
}

function unlessMissing<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch (error) {
    if (errnoName(error) === 'ENOENT') return undefined;
    throw error;
  }
}
