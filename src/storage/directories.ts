/** Folders: made durably, and where they are by default. */
import { mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { DiskError, errnoName } from '../common/errors.js';
import { hostFiles } from './atomic-write.js';

/**
 * Makes a folder of mode 0700 and those above it that are missing, and makes their names durable.
 * A folder that is there is left as it is.
 * @throws DiskError `not-permitted` or `failed`, naming the folder.
 */
export async function makeFolder(path: string): Promise<void> {
  let first: string | undefined;
  try {
    first = await mkdir(path, { recursive: true, mode: 0o700 });
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
      { errno, cause: error },
    );
  }
}

/** Where the daemon's things are when nobody says otherwise. */
export interface DefaultPlaces {
  readonly store: string;
  readonly socket: string;
  readonly mountpoint: string;
}

/**
 * root: the system's places; a user: the XDG base directories.
 * @param environment for `XDG_DATA_HOME`, `XDG_RUNTIME_DIR` and `HOME`.
 */
export function defaultPlaces(
  environment: Readonly<Record<string, string | undefined>>,
  userId: number,
): DefaultPlaces {
  if (userId === 0) return places('/var/lib/layerdisk', '/run/layerdisk');
  const home = absolute(environment.HOME) ?? '/';
  const data = absolute(environment.XDG_DATA_HOME) ?? join(home, '.local', 'share');
  const runtime = absolute(environment.XDG_RUNTIME_DIR) ?? `/tmp/layerdisk-${userId}`;
  return places(join(data, 'layerdisk'), join(runtime, 'layerdisk'));
}

function places(store: string, runtime: string): DefaultPlaces {
  return { store, socket: join(runtime, 'control.sock'), mountpoint: join(runtime, 'mnt') };
}

/** The XDG specification: a relative path there is invalid and to be ignored. */
function absolute(path: string | undefined): string | undefined {
  return path?.startsWith('/') ? path : undefined;
}
