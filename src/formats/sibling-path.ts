/** The one place that turns a file name written inside an image into a path that may be opened. */
import { dirname, isAbsolute, resolve, sep } from 'node:path';
import { DiskError } from '../common/errors.js';
import { HostFile } from '../storage/host-file.js';
import { realPath } from '../storage/host-path.js';

/** Longest name that is looked at; Linux's PATH_MAX. */
const MAX_NAME_LENGTH = 4096;
/** Longest part of a name that an error message repeats. */
const MAX_SHOWN_LENGTH = 120;

/**
 * Resolves the name of another file of the same image (qcow2 data file, VMDK extent) as found in
 * `imagePath`. Names are untrusted: whoever made the image chose them, and whoever opens it must
 * not be made to read another file of the host (CVE-2022-47951, CVE-2024-32498). So the answer is
 * always a regular file that, with every link resolved, lies in the image's own folder or below it,
 * or in a folder that the user allowed.
 *
 * Relative names count from the folder of the image itself (links to the image resolved), never
 * from the current directory. Absolute names are judged by the same rule. The separators are POSIX
 * ones. Open the answer with `HostFile.open`, which never blocks.
 *
 * @param allowFolders further absolute folders in which (or below which) the file may lie.
 * @returns the absolute path, free of links.
 * @throws DiskError `not-permitted` (protocol, outside the folder, no permission), `not-found`,
 *   `damaged` (no possible name), `failed` (not a regular file); each names the image and the name.
 */
export function resolveSibling(
  imagePath: string,
  name: string,
  allowFolders: readonly string[] = [],
): string {
  const shown = quoteName(name);
  if (name.length === 0 || name.length > MAX_NAME_LENGTH || name.includes('\0')) {
    throw new DiskError('damaged', `${imagePath}: refers to a file by an impossible name ${shown}`);
  }
  if (hasProtocol(name)) {
    throw new DiskError(
      'not-permitted',
      `${imagePath}: refers to ${shown}, which is a protocol and not a file name`,
      { hint: 'only plain file names in the folder of the image are followed' },
    );
  }
  const folder = dirname(realPath(imagePath));
  const target = targetOf(imagePath, folder, name);
  const allowed = () => allowFolders.map(realPath);
  if (!isInside(target, folder) && !allowed().some((path) => isInside(target, path))) {
    throw new DiskError(
      'not-permitted',
      `${imagePath}: refers to ${shown}, which lies outside the folder of the image`,
      {
        hint: isAbsolute(name)
          ? `import it with the folder of that file: --allow-folder ${dirname(target)}`
          : 'copy the image and all its files into one folder, or import with --allow-folder DIR',
      },
    );
  }
  checkRegular(imagePath, name, target);
  return target;
}

/**
 * Whether `name` starts like `json:` or `nbd://`: a colon before the first slash (QEMU's own rule).
 */
export function hasProtocol(name: string): boolean {
  return /^[^/]*:/.test(name);
}

/**
 * A name from inside an image as an error message may show it: quoted, on one line, of bounded
 * length.
 */
export function quoteName(name: string): string {
  const cut = name.length > MAX_SHOWN_LENGTH ? `${name.slice(0, MAX_SHOWN_LENGTH)}\u2026` : name;
  const escapeControl = (char: string) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`;
  return JSON.stringify(cut).replace(/[\u007f-\u009f\u2028\u2029\u202a-\u202e]/g, escapeControl);
}

function isInside(path: string, folder: string): boolean {
  return path.startsWith(folder.endsWith(sep) ? folder : folder + sep);
}

/** The real path of what `name` leads to; whether it may be used has not been judged yet. */
function targetOf(imagePath: string, folder: string, name: string): string {
  try {
    return realPath(resolve(folder, name));
  } catch (error) {
    if (!(error instanceof DiskError)) throw error;
    const why = error.code === 'not-found' ? 'no such file' : `cannot use it (${error.errno})`;
    throw new DiskError(error.code, `${imagePath}: refers to ${quoteName(name)}: ${why}`, {
      ...(error.errno === undefined ? {} : { errno: error.errno }),
      cause: error,
    });
  }
}

/** Opens the file once, which neither blocks nor changes anything, to see what it is. */
function checkRegular(imagePath: string, name: string, target: string): void {
  try {
    HostFile.open(target).close();
  } catch (error) {
    if (!(error instanceof DiskError)) throw error;
    const why = error.code === 'failed' ? 'not a regular file' : 'cannot open it';
    throw new DiskError(error.code, `${imagePath}: refers to ${quoteName(name)}: ${why}`, {
      ...(error.errno === undefined ? {} : { errno: error.errno }),
      cause: error,
    });
  }
}
