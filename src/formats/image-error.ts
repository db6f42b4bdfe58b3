/** The errors that readers of image formats make themselves. */
import { DiskError } from '../common/errors.js';

/** The image contradicts itself or its file; `what` says where and how, in one line. */
export function damaged(path: string, what: string, cause?: unknown): DiskError {
  return new DiskError('damaged', `${path}: ${what}`, { errno: 'EIO', cause });
}

/** The image is sound, as far as can be told, but uses something that is not read. */
export function unsupported(path: string, what: string, hint?: string): DiskError {
  return new DiskError('not-supported', `${path}: ${what}`, hint === undefined ? {} : { hint });
}

/** An image inside an archive that names another file: `what` says which kind. */
export function notAlone(path: string, what: string): DiskError {
  return unsupported(
    path,
    `a disk in this archive has ${what} in a file of its own`,
    `unpack it and import the machine from there: tar -xf ${path}`,
  );
}
