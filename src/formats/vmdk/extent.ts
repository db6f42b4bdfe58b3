/** What a VMDK disk is made of: the contract of one extent, and the kinds that need no tables. */
import { DiskError } from '../../common/errors.js';
import type { Extent, ExtentLocation } from '../../engine/disk-image.js';
import type { ReadableFile } from '../../storage/host-file.js';
import { FileRuns } from '../../storage/sparse-file.js';

/** A part of the disk; offsets count from the extent's own start. */
export interface VmdkExtent {
  /** Bytes. */
  readonly length: number;
  /** Bytes of an allocation unit; 0 where there is none. */
  readonly grainSize: number;
  /** True where no byte is ever `unallocated`. */
  readonly complete: boolean;
  /** Non-fatal findings. */
  readonly notes: readonly string[];
  /** As `DiskImage.extentAt`. */
  extentAt(offset: number, length: number, out: Extent): void;
  /** As `DiskImage.readAt`. */
  readAt(target: Buffer, targetOffset: number, offset: number, length: number): void;
  locate(offset: number): ExtentLocation | undefined;
}

/** The error of bytes that an extent should have and has not. */
export function damagedExtent(path: string, what: string): DiskError {
  return new DiskError('damaged', `${path}: ${what}`, { errno: 'EIO' });
}

/** `FLAT` and `VMFS`: the file, from some sector on, is the extent. */
export class FlatExtent implements VmdkExtent {
  readonly length: number;
  readonly grainSize = 0;
  readonly complete = true;
  readonly notes = [];
  readonly #file: ReadableFile;
  readonly #start: number;
  readonly #runs: FileRuns;

  /** @param start byte of the file at which the extent begins. */
  constructor(file: ReadableFile, start: number, length: number) {
    this.#file = file;
    this.#start = start;
    this.length = length;
    this.#runs = new FileRuns(file.fd, file.size);
  }

  extentAt(offset: number, length: number, out: Extent): void {
    const at = this.#start + offset;
    out.state = this.#runs.isData(at) ? 'data' : 'zero';
    out.length = Math.min(length, this.#runs.endOf(at) - at);
  }

  readAt(target: Buffer, targetOffset: number, offset: number, length: number): void {
    this.#file.readExact(target, targetOffset, length, this.#start + offset);
  }

  locate(offset: number): ExtentLocation | undefined {
    const { path: file, size } = this.#file;
    const start = this.#start + offset;
    const length = Math.min(this.length - offset, size - start);
    return length <= 0 ? undefined : { file, offset: start, length };
  }
}

/** `ZERO`: no file, reads as zeroes. */
export class ZeroExtent implements VmdkExtent {
  readonly grainSize = 0;
  readonly complete = true;
  readonly notes = [];
  readonly length: number;

  constructor(length: number) {
    this.length = length;
  }

  extentAt(_offset: number, length: number, out: Extent): void {
    out.state = 'zero';
    out.length = length;
  }

  readAt(target: Buffer, targetOffset: number, _offset: number, length: number): void {
    target.fill(0, targetOffset, targetOffset + length);
  }

  locate(): undefined {
    return undefined;
  }
}
