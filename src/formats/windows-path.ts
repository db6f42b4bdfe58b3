/**
 * Turns the Windows paths by which Microsoft's formats name parents into names to try, and back.
 */
import { isAbsolute, normalize } from 'node:path';
import { realPath } from '../storage/host-path.js';
import { unsupported } from './image-error.js';
import type { ParentLink } from './image-writer.js';

/**
 * `\\?\C:\x\y`, `..\x\y` with POSIX separators, without the prefix for long paths and without `.\`.
 */
export function posixSeparators(windowsPath: string): string {
  return windowsPath
    .replace(/^\\\\\?\\UNC\\/, '\\\\')
    .replace(/^\\\\\?\\/, '')
    .replace(/^(\.\\)+/, '')
    .replaceAll('\\', '/');
}

/** The part behind the last separator of either kind. */
export function baseName(path: string): string {
  return path.slice(Math.max(path.lastIndexOf('/'), path.lastIndexOf('\\')) + 1);
}

/**
 * The names to try for a parent, each once: the relative paths, then the bare names of all paths
 * (for a parent that was moved together with its child), then the absolute paths as they are, which
 * are told where all else fails.
 */
export function parentNames(relative: readonly string[], absolute: readonly string[]): string[] {
  const bare = [...relative, ...absolute].map(baseName);
  const drives = absolute.map(posixSeparators).filter((path) => !path.startsWith('Volume{'));
  const names = [...relative.map(posixSeparators), ...bare, ...drives];
  return [...new Set(names)].filter((name) => name !== '' && name !== '.' && name !== '..');
}

/** What a child writes down; at least one of the two is there. */
export interface WindowsNames {
  /** `.\\base.vhd`: from the child's own folder. */
  readonly relative: string | undefined;
  /** `\\images\\base.vhd`: Windows takes it for a path on the current drive. */
  readonly absolute: string | undefined;
}

/**
 * The parent's names as Windows paths.
 * @throws DiskError `not-supported` when no Windows path can say them.
 */
export function windowsNames(path: string, parent: ParentLink): WindowsNames {
  const name = normalize(parent.name);
  const local = name.startsWith('../') ? name : `./${name}`;
  const relative = isAbsolute(name) ? undefined : windowsPath(local);
  const absolute = windowsPath(realPath(parent.image.path));
  if (absolute === undefined && relative === undefined) {
    throw unsupported(
      path,
      `its parent ${parent.image.path} has a name that no Windows path can say`,
      'give the parent a name without backslashes and colons',
    );
  }
  return { relative, absolute };
}

/** Undefined where a backslash or a colon would come to mean something else. */
function windowsPath(path: string): string | undefined {
  return /[\\:]/.test(path) ? undefined : path.replaceAll('/', '\\');
}
