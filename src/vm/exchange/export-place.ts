/** Where an export may go: what it must not replace, and where links lead. */
import { lstat, realpath, stat } from 'node:fs/promises';
import { basename, dirname, join, sep } from 'node:path';
import { DiskError, errnoName } from '../../common/errors.js';
import { shellWord } from '../../common/shell-word.js';
import { fileIdOf } from '../../storage/file-id.js';
import { exists, failure, spared } from '../../storage/output-files.js';

export interface PlaceRules {
  readonly overwrite: boolean;
  /** Absolute folders that nothing is put into: the store and the mount point. */
  readonly ownFolders: readonly string[];
  /** `fileId`s of the files of base images. */
  readonly spared: ReadonlySet<string>;
}

/**
 * The path of the file to make, free of links.
 * @throws DiskError `not-found` for a folder that is not there, `exists`, `usage` for what is no
 * place for an image.
 */
export async function settlePlace(path: string, rules: PlaceRules): Promise<string> {
  // By name first: a look at the daemon's own mount is for its I/O threads to answer.
  refuseOwnFolder(path, path, rules);
  const folder = await realFolder(path);
  const plain = join(folder, basename(path));
  refuseOwnFolder(path, plain, rules);
  if (!(await isThere(plain))) return plain;
  const file = await realpath(plain).catch(() => undefined);
  if (file === undefined) {
    throw new DiskError('exists', `${path} is a link that leads nowhere`, {
      hint: 'choose another name, or remove the link',
    });
  }
  refuseOwnFolder(path, file, rules);
  const state = await stat(file, { bigint: true });
  if (state.isDirectory()) {
    throw new DiskError('usage', `${path} is a folder`, {
      hint: `name the file: ${join(path, 'disk.qcow2')}`,
    });
  }
  if (!state.isFile()) {
    throw new DiskError('usage', `${path} is not a regular file`, {
      hint: 'export to a file; what it holds can be copied to a device afterwards',
    });
  }
  if (rules.spared.has(fileIdOf(state))) throw spared(path);
  if (!rules.overwrite) throw exists(path);
  return file;
}

function refuseOwnFolder(path: string, found: string, { ownFolders }: PlaceRules): void {
  if (!ownFolders.some((folder) => found === folder || found.startsWith(folder + sep))) return;
  throw new DiskError('usage', `${path} lies in a folder of layerdisk itself`, {
    hint: 'choose a place outside the store and the mount point',
  });
}

async function realFolder(path: string): Promise<string> {
  const folder = dirname(path);
  try {
    const real = await realpath(folder);
    if ((await stat(real)).isDirectory()) return real;
  } catch (error) {
    const errno = errnoName(error);
    if (errno === 'EACCES') {
      throw new DiskError('not-permitted', `${folder}: no permission to look it up`, { errno });
    }
    if (errno !== 'ENOENT' && errno !== 'ENOTDIR') {
      const text = `${folder}: cannot look it up (${errno ?? String(error)})`;
      throw new DiskError('failed', text, { cause: error });
    }
  }
  throw new DiskError('not-found', `${folder}: no such folder`, {
    errno: 'ENOENT',
    hint: `make it first: mkdir -p ${shellWord(folder)}`,
  });
}

async function isThere(path: string): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch (error) {
    if (errnoName(error) === 'ENOENT') return false;
    throw failure(path, 'cannot look it up', error);
  }
}
