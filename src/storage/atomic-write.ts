/** Replacing a small file as a whole: write a temporary one, fsync it, rename, fsync the folder. */
import { randomBytes } from 'node:crypto';
import { closeSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { DiskError, errnoName } from '../common/errors.js';
import { SharedRun } from '../common/together.js';
import { writeExact } from './exact-io.js';
import { syncFolderLater } from './folder-sync.js';
import { hostCalls } from './host-calls.js';

/**
 * The calls that make a change durable. Each is told which step of which operation it is, as
 * `<what>.<step>`, so that tests can make exactly that one fail.
 */
export interface DurableFiles {
  /** Makes a new file of mode 0600 with this content, flushed to the disk. */
  writeNew(path: string, content: string, step: string): Promise<void>;
  /** Synchronous, so that a caller can make it the one instant of a change. */
  rename(from: string, to: string, step: string): void;
  /** Makes renames, creations and removals in a folder durable. */
  syncFolder(path: string, step: string): Promise<void>;
  /** Removes a file; one that is not there is no error. */
  remove(path: string, step: string): Promise<void>;
}

/** The host's own files. */
export const hostFiles: DurableFiles = {
  async writeNew(path, content, step) {
    const bytes = Buffer.from(content);
    const fd = hostCalls.create(path, 'wx', `${step}.create`);
    try {
      writeExact(fd, bytes, 0, bytes.length, 0, step);
      await hostCalls.syncLater(fd, `${step}.sync`);
    } finally {
      closeSync(fd);
    }
  },
  rename: (from, to, step) => hostCalls.rename(from, to, step),
  syncFolder: syncFolderLater,
  async remove(path, step) {
    try {
      hostCalls.unlink(path, step);
    } catch (error) {
      if (errnoName(error) !== 'ENOENT') throw error;
    }
  },
};

/** The same files for changes under way at once: they share the syncs of their folders. */
export function sharingSyncs(files: DurableFiles): DurableFiles {
  const folders = new Map<string, SharedRun>();
  return {
    ...files,
    syncFolder(path, step) {
      let folder = folders.get(path);
      if (folder === undefined) {
        folder = new SharedRun((why) => files.syncFolder(path, why));
        folders.set(path, folder);
      }
      return folder.run(step);
    },
  };
}

/** A new content that lies beside the file, durable, waiting to take its place. */
export interface PendingFile {
  /** The one instant of the change: a rename. If it throws, nothing has changed. */
  commit(): void;
  /**
   * Makes the commit survive a power cut. @throws DiskError `failed`; the change stands all the
   * same.
   */
  settle(): Promise<void>;
  /** Instead of `commit`: removes the new content again. */
  abandon(): Promise<void>;
}

const TEMPORARY = /^\..*\.tmp-[0-9a-f]{12}$/;

/** Whether a file name is that of a replacement that was cut short (to be removed at start-up). */
export function isTemporaryName(name: string): boolean {
  return TEMPORARY.test(name);
}

/** A new name beside `path` for what is to take its place; see `isTemporaryName`. */
export function temporaryPath(path: string): string {
  return join(dirname(path), `.${basename(path)}.tmp-${randomBytes(6).toString('hex')}`);
}

/**
 * Writes `content` beside `path`, durably, to replace or create it by `commit`.
 * @param what starts the names of the steps: `<what>.write`, `.rename`, `.sync-folder`, `.abandon`.
 * @throws DiskError `failed` with the host's errno; nothing is left behind then.
 */
export async function prepareFile(
  files: DurableFiles,
  path: string,
  content: string,
  what: string,
): Promise<PendingFile> {
  const folder = dirname(path);
  const temporary = temporaryPath(path);
  const abandon = () => files.remove(temporary, `${what}.abandon`);
  try {
    await files.writeNew(temporary, content, `${what}.write`);
  } catch (error) {
    // The first error is the one to report; a leftover is removed at the next start.
    await abandon().catch(() => undefined);
    throw writeError(path, error);
  }
  return {
    commit() {
      try {
        files.rename(temporary, path, `${what}.rename`);
      } catch (error) {
        throw writeError(path, error);
      }
    },
    async settle() {
      try {
        await files.syncFolder(folder, `${what}.sync-folder`);
      } catch (error) {
        throw unsettledError(path, error);
      }
    },
    abandon,
  };
}

/** `prepareFile`, `commit` and `settle` in one. */
export async function replaceFile(
  files: DurableFiles,
  path: string,
  content: string,
  what: string,
): Promise<void> {
  const pending = await prepareFile(files, path, content, what);
  try {
    pending.commit();
  } catch (error) {
    // The first error is the one to report; a leftover is removed at the next start.
    await pending.abandon().catch(() => undefined);
    throw error;
  }
  await pending.settle();
}

const HINTS: Readonly<Record<string, string>> = {
  ENOSPC: 'free some space there and try again: layerdisk delete works all the same',
  EDQUOT: 'free some space there and try again: layerdisk delete works all the same',
  EROFS: 'its file system is read-only: see the log of the host, and remount it',
  ENOENT: 'its folder is gone: bring it back from a backup, then layerdisk check',
};

/** The error for a file that could not be written; the old content is still there. */
export function writeError(path: string, error: unknown): DiskError {
  const errno = errnoName(error) ?? 'EIO';
  const hint = HINTS[errno] ?? '';
  return new DiskError('failed', `cannot write ${path} (${errno})`, {
    errno,
    cause: error,
    ...(hint === '' ? {} : { hint }),
  });
}

/** The error for a change that is made, but may be undone by a power cut. */
export function unsettledError(path: string, error: unknown): DiskError {
  const errno = errnoName(error) ?? 'EIO';
  return new DiskError(
    'failed',
    `${path} is changed, but the host cannot make it durable (${errno})`,
    {
      errno,
      cause: error,
      hint: 'check the host disk that the store lies on',
    },
  );
}
