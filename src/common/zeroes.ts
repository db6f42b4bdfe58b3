/** Zeroes, and whether bytes are zero: asked of everything that is copied. */
import { invariant } from './assert.js';
import { MiB } from './units.js';

/** The most that one call may look at, bytes. */
export const MOST_ZEROES = MiB;

/** `MOST_ZEROES` of them, to be read only. */
export const ZEROES = Buffer.alloc(MOST_ZEROES);

/** Whether `length` bytes at `at` are all zero. */
export function isZero(bytes: Buffer, at: number, length: number): boolean {
  // Most data shows it at once.
  if (bytes[at] !== 0) return false;
  invariant(length <= MOST_ZEROES, `${length} bytes compared with zeroes at once`);
  return bytes.compare(ZEROES, 0, length, at, at + length) === 0;
}
