/** The one table from errors to the errno numbers that callers of the files see. */
import { constants } from 'node:os';
import { DiskError, type ErrorCode, errnoName } from '../common/errors.js';

/** Where a `DiskError` does not name its errno itself. */
const BY_CODE: Readonly<Record<ErrorCode, string>> = {
  failed: 'EIO',
  usage: 'EINVAL',
  unreachable: 'EIO',
  'not-found': 'ENOENT',
  exists: 'EEXIST',
  busy: 'EBUSY',
  damaged: 'EIO',
  leaks: 'EIO',
  'not-permitted': 'EPERM',
  'not-supported': 'EOPNOTSUPP',
  interrupted: 'EINTR',
};

const NUMBERS: ReadonlyMap<string, number> = new Map(Object.entries(constants.errno));

/** The kernel refuses replies from 512 on, which would leave the caller waiting for ever. */
const LARGEST_ERRNO = 511;

/** Number of an errno name; EIO for a name that the host does not know. */
export function errnoNumber(name: string): number {
  const number = NUMBERS.get(name) ?? constants.errno.EIO;
  return number > 0 && number <= LARGEST_ERRNO ? number : constants.errno.EIO;
}

/**
 * The (positive) errno that an error becomes. ENOSYS becomes EIO: to the kernel it does not
 * mean "this call failed" but "never ask again", after which it would report every fsync as
 * done.
 */
export function errnoOf(error: unknown): number {
  const name = errnoName(error) ?? (error instanceof DiskError ? BY_CODE[error.code] : 'EIO');
  return name === 'ENOSYS' ? constants.errno.EIO : errnoNumber(name);
}

/** Whether an error is a bug of ours, as opposed to bad input, a full disk or a damaged image. */
export function isBug(error: unknown): boolean {
  return !(error instanceof DiskError) && !NUMBERS.has(errnoName(error) ?? '');
}
