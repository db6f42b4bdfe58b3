/** A readable file in memory, for tests that make thousands of them. */
import { DiskError } from '../../src/common/errors.js';
import type { ReadableFile } from '../../src/storage/host-file.js';

export class MemoryFile implements ReadableFile {
  readonly path: string;
  readonly fd = -1;
  readonly #bytes: Buffer;

  constructor(bytes: Buffer, path = '/memory/disk') {
    this.#bytes = bytes;
    this.path = path;
  }

  get size(): number {
    return this.#bytes.length;
  }

  readExact(target: Buffer, targetOffset: number, length: number, offset: number): void {
    if (
      !(offset >= 0 && length >= 0 && targetOffset >= 0 && targetOffset + length <= target.length)
    ) {
      throw new RangeError(`read of ${length} bytes at ${offset} to ${targetOffset}`);
    }
    if (offset + length > this.#bytes.length) {
      throw new DiskError('damaged', `${this.path}: file ends at ${this.#bytes.length}`, {
        errno: 'EIO',
      });
    }
    this.#bytes.copy(target, targetOffset, offset, offset + length);
  }

  close(): void {}
}
