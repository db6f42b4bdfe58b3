/**
 * Positioned reads and writes that either move every byte or say why not. Labels: host-calls.ts.
 */
import { DiskError, type ErrorCode, errnoName } from '../common/errors.js';
import { hostCalls } from './host-calls.js';

/** What to do about a store that runs full. */
export const FULL_HINT = 'free space there, or delete snapshots and run: layerdisk gc';

/** What to do about a store that is somebody else's, or whose files may not be changed. */
export const OWNER_HINT =
  "run as the owner of the store's files, or as root; ls -l and lsattr tell more";

interface Known {
  /** Default: the errno. */
  readonly says?: string;
  /** Default: `failed`. */
  readonly code?: ErrorCode;
  readonly hint: string;
  readonly passing?: true;
}

const NO_SPACE: Known = {
  says: "no space left in the store's file system",
  hint: FULL_HINT,
  passing: true,
};
const NOT_OURS: Known = { code: 'not-permitted', hint: OWNER_HINT };

/** Errors of the host that people can do something about. */
const KNOWN: Readonly<Record<string, Known>> = {
  ENOSPC: NO_SPACE,
  EDQUOT: NO_SPACE,
  EROFS: {
    says: 'its file system is read-only (EROFS)',
    hint: 'see the log of the host, and remount it',
  },
  EACCES: NOT_OURS,
  EPERM: NOT_OURS,
  EMFILE: {
    says: 'the daemon may open no more files (EMFILE)',
    hint: 'close disks, or raise its limit (ulimit -n, LimitNOFILE=) and start it anew',
  },
  ENFILE: {
    says: 'the host has too many open files (ENFILE)',
    hint: 'raise its limit: sysctl fs.file-max',
  },
};

/**
 * What a host error becomes: its errno goes on to whoever made the request. One that says already
 * what is wrong stays as it is.
 * @param otherwise what to do about an error of which nothing better is known.
 */
export function hostError(what: string, error: unknown, otherwise?: string): DiskError {
  if (error instanceof DiskError) return error;
  const errno = errnoName(error) ?? 'EIO';
  const known = KNOWN[errno];
  const hint = known?.hint ?? otherwise;
  return new DiskError(known?.code ?? 'failed', `${what}: ${known?.says ?? errno}`, {
    errno,
    ...(hint === undefined ? {} : { hint }),
    ...(known?.passing === undefined ? {} : { passing: known.passing }),
    cause: error,
  });
}

/** Runs calls to the host. @throws DiskError `what`, with the host's errno, when one fails. */
export function orHostError<T>(what: string, calls: () => T): T {
  try {
    return calls();
  } catch (error) {
    throw hostError(what, error);
  }
}

/**
 * Reads exactly `length` bytes; what lies past the end of the file reads as zero (a slot at the end
 * of a data file may never have been written in full).
 */
export function readPadded(
  fd: number,
  target: Buffer,
  targetOffset: number,
  length: number,
  offset: number,
  label: string,
): void {
  let done = 0;
  try {
    while (done < length) {
      const at = targetOffset + done;
      const count = hostCalls.read(fd, target, at, length - done, offset + done, label);
      if (count === 0) {
        target.fill(0, targetOffset + done, targetOffset + length);
        return;
      }
      done += count;
    }
  } catch (error) {
    throw hostError(`cannot read ${length} bytes at ${offset}`, error);
  }
}

/** Writes exactly `length` bytes; a short write is continued until the host says why. */
export function writeExact(
  fd: number,
  source: Buffer,
  sourceOffset: number,
  length: number,
  offset: number,
  label: string,
): void {
  let done = 0;
  try {
    while (done < length) {
      const at = sourceOffset + done;
      const count = hostCalls.write(fd, source, at, length - done, offset + done, label);
      // No file system does that; one that did would keep us here for ever.
      if (count === 0) throw new DiskError('failed', 'nothing was written', { errno: 'EIO' });
      done += count;
    }
  } catch (error) {
    throw hostError(`cannot write ${length} bytes at ${offset}`, error);
  }
}
