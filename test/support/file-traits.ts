/** What a file is and holds: taken before and after something that must not touch it. */
import { createHash } from 'node:crypto';
import { open, stat } from 'node:fs/promises';
import { KiB } from '../../src/common/units.js';
import { seekData } from '../../src/storage/sparse-file.js';

const UNIT = 64 * KiB;

/**
 * `nz64k` of the manifest: number (64 bits, little endian) and bytes of every 64 KiB that are not
 * all zero. Reads only what the file does not call a hole.
 */
export async function hashOfBlocks(path: string): Promise<string> {
  const hash = createHash('sha256');
  const bytes = Buffer.alloc(UNIT);
  const zeroes = Buffer.alloc(UNIT);
  const number = Buffer.alloc(8);
  const file = await open(path, 'r');
  try {
    for (let at = 0; ; at += UNIT) {
      const data = seekData(file.fd, at);
      if (data < 0) return hash.digest('hex');
      at = data - (data % UNIT);
      const { bytesRead } = await file.read(bytes, 0, UNIT, at);
      const block = bytes.subarray(0, bytesRead);
      if (block.equals(zeroes.subarray(0, bytesRead))) continue;
      number.writeBigUInt64LE(BigInt(at / UNIT));
      hash.update(number).update(block);
    }
  } finally {
    await file.close();
  }
}

/** Everything about files that reading them must not change. */
export async function traitsOf(paths: readonly string[]) {
  return Promise.all(
    paths.map(async (path) => {
      const { size, mode, mtimeMs, ctimeMs } = await stat(path);
      return { path, size, mode, mtimeMs, ctimeMs, content: await hashOfBlocks(path) };
    }),
  );
}
