/** What a VMDK that is being written is made of: the contract of one extent, and flat ones. */
import type { OutputFile } from '../../storage/output-files.js';

/** As `ImageWriter`, for one extent: offsets count from the extent's own start. */
export interface ExtentWriter {
  write(
    offset: number,
    source: Buffer,
    sourceOffset: number,
    length: number,
  ): Promise<void> | undefined;
  zero(offset: number, length: number): void;
  finish(): void;
}

/** `FLAT`: the file is the extent, and what nobody writes is a hole. */
export class FlatExtentWriter implements ExtentWriter {
  readonly #file: OutputFile;

  /** @throws DiskError for a size that the host's file system cannot hold. */
  constructor(file: OutputFile, length: number) {
    this.#file = file;
    file.truncate(length);
  }

  write(offset: number, source: Buffer, sourceOffset: number, length: number): undefined {
    this.#file.write(source, sourceOffset, length, offset);
  }

  zero(): void {
    // It has no parent whose data could show, and what was not written reads as zeroes.
  }

  finish(): void {
    // Nothing but the bytes themselves.
  }
}
