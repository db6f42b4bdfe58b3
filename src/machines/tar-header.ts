/** Headers of tar archives, for writing: one block of 512 bytes before each member. */
import { Header } from 'tar/header';
import { alignUp } from '../common/units.js';

const BLOCK = 512;
/** Two blocks of zeroes. */
export const TAR_END = 2 * BLOCK;

/** Bytes that a member takes behind its header. */
export function paddedSize(size: number): number {
  return alignUp(size, BLOCK);
}

/** Sizes from 8 GiB on are written in base 256, as GNU tar does. */
export function tarHeader(name: string, size: number): Buffer {
  const block = Buffer.alloc(BLOCK);
  const header = new Header({ path: name, size, mode: 0o644, type: 'File', mtime: new Date(0) });
  header.encode(block, 0);
  return block;
}
