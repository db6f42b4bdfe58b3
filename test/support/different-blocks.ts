/** What differs between two disks, byte by byte, joined to blocks: the model of `snapshot diff`. */
import type { DiffExtent } from '../../src/common/disk-diff.js';

const BLOCK = 4096;

/** A block that only one of them has, or has more of, differs; what is missing reads as zeroes. */
export function differentBlocks(from: Buffer, to: Buffer): DiffExtent[] {
  const extents: DiffExtent[] = [];
  const end = Math.max(from.length, to.length);
  for (let start = 0; start < end; start += BLOCK) {
    const [before, after] = [from, to].map((bytes) => bytes.subarray(start, start + BLOCK));
    if (before === undefined || after === undefined || before.equals(after)) continue;
    const zero = after.every((byte) => byte === 0);
    const length = Math.min(BLOCK, end - start);
    const last = extents.at(-1);
    if (last?.zero === zero && last.start + last.length === start) {
      extents[extents.length - 1] = { ...last, length: last.length + length };
    } else extents.push({ start, length, zero });
  }
  return extents;
}
