/** Space of host files: preallocating it, punching it out, zeroing it. */
import { errnoName } from '../common/errors.js';
import { hostError } from './exact-io.js';
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  fallocate,
} from './libc.js';

function call(fd: number, mode: number, offset: number, length: number, what: string): void {
  for (;;) {
    try {
      fallocate(fd, mode, offset, length);
      return;
    } catch (error) {
      if (errnoName(error) !== 'EINTR') throw hostError(what, error);
    }
  }
}

/** Takes `length` bytes of space from offset 0 on; they read as zero. @throws DiskError ENOSPC. */
export function preallocate(fd: number, length: number): void {
  call(fd, 0, 0, length, `cannot take ${length} bytes of space`);
}

/** Gives the space of a range back; it reads as zero afterwards. */
export function punchHole(fd: number, offset: number, length: number): void {
  const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  call(fd, mode, offset, length, `cannot punch ${length} bytes at ${offset}`);
}

/** Makes a range read as zero while it keeps its space. */
export function zeroRange(fd: number, offset: number, length: number): void {
  const mode = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
  call(fd, mode, offset, length, `cannot zero ${length} bytes at ${offset}`);
}
