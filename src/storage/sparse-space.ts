/** Space of host files: preallocating it, punching it out, zeroing it. */
import { errnoName } from '../common/errors.js';
import { ZEROES } from '../common/zeroes.js';
import { hostError, writeExact } from './exact-io.js';
import { hostCalls } from './host-calls.js';
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE } from './libc.js';

/** EOPNOTSUPP and ENOTSUP are one number on Linux; this is what Node calls it. */
export const NOT_SUPPORTED = 'ENOTSUP';

/** Whether a file system has no such call, as tmpfs has none that zeroes. */
export function isUnknownCall(error: unknown): boolean {
  const errno = errnoName(error);
  return errno === NOT_SUPPORTED || errno === 'ENOSYS';
}

/** A part of an open file, bytes. */
interface Range {
  readonly fd: number;
  readonly offset: number;
  readonly length: number;
}

function call({ fd, offset, length }: Range, mode: number, what: string, label: string): void {
  for (;;) {
    try {
      hostCalls.allocate(fd, mode, offset, length, label);
      return;
    } catch (error) {
      if (errnoName(error) !== 'EINTR') throw hostError(what, error);
    }
  }
}

/** Takes `length` bytes of space from offset 0 on; they read as zero. @throws DiskError ENOSPC. */
export function preallocate(fd: number, length: number, label: string): void {
  call({ fd, offset: 0, length }, 0, `cannot take ${length} bytes of space`, label);
}

/** Gives the space of a range back; it reads as zero afterwards. */
export function punchHole(fd: number, offset: number, length: number, label: string): void {
  const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  call({ fd, offset, length }, mode, `cannot punch ${length} bytes at ${offset}`, label);
}

/** Makes a range read as zero while it keeps its space. */
export function zeroRange(fd: number, offset: number, length: number, label: string): void {
  const mode = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
  try {
    call({ fd, offset, length }, mode, `cannot zero ${length} bytes at ${offset}`, label);
  } catch (error) {
    if (!isUnknownCall(error)) throw error;
    for (let done = 0; done < length; done += ZEROES.length) {
      const piece = Math.min(ZEROES.length, length - done);
      writeExact(fd, ZEROES, 0, piece, offset + done, label);
    }
  }
}
