/**
 * The numbers that scripts see. A number is never given another meaning; a retired one stays
 * unused.
 */
import type { ErrorCode } from '../common/errors.js';

/** Success. */
export const EXIT_OK = 0;

/** Exit code of every error code. */
export const EXIT_CODES: Readonly<Record<ErrorCode, number>> = {
  failed: 1,
  usage: 2,
  unreachable: 3,
  'not-found': 4,
  exists: 5,
  busy: 6,
  damaged: 7,
  leaks: 8,
  'not-permitted': 9,
  'not-supported': 10,
  interrupted: 130,
};
