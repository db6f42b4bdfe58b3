/** The two errors that readers of image formats make themselves. */
import { DiskError } from '../common/errors.js';

/** The image contradicts itself or its file; `what` says where and how, in one line. */
export function damaged(path: string, what: string, cause?: unknown): DiskError {
  return new DiskError('damaged', `${path}: ${what}`, { errno: 'EIO', cause });
}

/** The image is sound, as far as can be told, but uses something that is not read. */
export function unsupported(path: string, what: string, hint?: string): DiskError {
  return new DiskError('not-supported', `${path}: ${what}`, hint === undefined ? {} : { hint });
}
