/** Whole files that others wrote: their checksum, and making them durable. */
import { closeSync, fsync, read } from 'node:fs';
import { promisify } from 'node:util';
import { crc32cOf } from '../common/checksum.js';
import { MiB } from '../common/units.js';
import { hostError } from './exact-io.js';
import { openStored } from './stored-file.js';

export interface SummedFile {
  /** Bytes. */
  readonly size: number;
  /** CRC-32C, as eight hexadecimal digits. */
  readonly checksum: string;
}

const readLater = promisify(read);
const syncLater = promisify(fsync);

/**
 * Reads a file in order.
 * @throws DiskError `failed` with the host's errno; `damaged` for what is no regular file.
 */
export async function sumFile(path: string): Promise<SummedFile> {
  return withFile(path, `cannot read ${path}`, async (fd) => {
    const buffer = Buffer.allocUnsafe(MiB);
    let size = 0;
    let sum = 0;
    for (;;) {
      const { bytesRead } = await readLater(fd, buffer, 0, buffer.length, size);
      if (bytesRead === 0) return { size, checksum: sum.toString(16).padStart(8, '0') };
      sum = crc32cOf(buffer.subarray(0, bytesRead), sum);
      size += bytesRead;
    }
  });
}

/** Makes the content of a file durable, its name not. @throws DiskError as above. */
export async function syncFile(path: string): Promise<void> {
  await withFile(path, `cannot flush ${path}`, syncLater);
}

async function withFile<T>(
  path: string,
  what: string,
  work: (fd: number) => Promise<T>,
): Promise<T> {
  try {
    const fd = openStored(path, 'r');
    try {
      return await work(fd);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    throw hostError(what, error);
  }
}
