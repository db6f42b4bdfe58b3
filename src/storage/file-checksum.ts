/** Whole files that others wrote: their checksum, and making them durable. */
import { open } from 'node:fs/promises';
import { crc32cOf } from '../common/checksum.js';
import { MiB } from '../common/units.js';
import { hostError } from './exact-io.js';

export interface SummedFile {
  /** Bytes. */
  readonly size: number;
  /** CRC-32C, as eight hexadecimal digits. */
  readonly checksum: string;
}

/** Reads a file in order. @throws DiskError `failed` with the host's errno. */
export async function sumFile(path: string): Promise<SummedFile> {
  try {
    const file = await open(path, 'r');
    try {
      const buffer = Buffer.allocUnsafe(MiB);
      let size = 0;
      let sum = 0;
      for (;;) {
        const { bytesRead } = await file.read(buffer, 0, buffer.length, size);
        if (bytesRead === 0) return { size, checksum: sum.toString(16).padStart(8, '0') };
        sum = crc32cOf(buffer.subarray(0, bytesRead), sum);
        size += bytesRead;
      }
    } finally {
      await file.close();
    }
  } catch (error) {
    throw hostError(`cannot read ${path}`, error);
  }
}

/** Makes the content of a file durable, its name not. @throws DiskError as above. */
export async function syncFile(path: string): Promise<void> {
  try {
    const file = await open(path, 'r');
    try {
      await file.sync();
    } finally {
      await file.close();
    }
  } catch (error) {
    throw hostError(`cannot flush ${path}`, error);
  }
}
