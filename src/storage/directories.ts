/** Folders, made durably. */
import { dirname } from 'node:path';
import { DiskError, errnoName } from '../common/errors.js';
import { hostFiles } from './atomic-write.js';
import { hostCalls } from './host-calls.js';

const IN_THE_WAY = 'a file is in its place: move that away';

/**
 * Makes a folder of mode 0700 and those above it that are missing, and makes their names durable.
 * A folder that is there is left as it is.
 * @throws DiskError `not-permitted` or `failed`, naming the folder.
 */
export async function makeFolder(path: string): Promise<void> {
  let first: string | undefined;
  try {
    first = await hostCalls.makeFolders(path, 'folder.make');
    if (first === undefined) return;
    for (let made = path; ; made = dirname(made)) {
      await hostFiles.syncFolder(dirname(made), 'folder.sync-folder');
      if (made === first || made === dirname(made)) return;
    }
  } catch (error) {
    const errno = errnoName(error) ?? 'EIO';
    const denied = errno === 'EACCES' || errno === 'EPERM' || errno === 'EROFS';
    throw new DiskError(
      denied ? 'not-permitted' : 'failed',
      `cannot make the folder ${path} (${errno})`,
      {
        errno,
        ...(errno === 'EEXIST' || errno === 'ENOTDIR' ? { hint: IN_THE_WAY } : {}),
        cause: error,
      },
    );
  }
}
