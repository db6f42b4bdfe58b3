/** Headers of tar archives, for writing: one block of 512 bytes before each member. */
import { Header } from 'tar/header';
import { invariant } from '../common/assert.js';
import { alignUp } from '../common/units.js';

/** Bytes of a header. */
export const TAR_BLOCK = 512;
/** Two blocks of zeroes. */
export const TAR_END = 2 * TAR_BLOCK;
/** Bytes of a name that fits into a header. */
export const LONGEST_NAME = 100;

/** Bytes that a member takes behind its header. */
export function paddedSize(size: number): number {
  return alignUp(size, TAR_BLOCK);
}

/** Sizes from 8 GiB on are written in base 256, as GNU tar does. */
export function tarHeader(name: string, size: number): Buffer {
  invariant(Buffer.byteLength(name) <= LONGEST_NAME, `${name} is too long for a tar header`);
  const block = Buffer.alloc(TAR_BLOCK);
  const header = new Header({ path: name, size, mode: 0o644, type: 'File', mtime: new Date(0) });
  header.encode(block, 0);
  return block;
}
