/** The log area of a VHDX as the ring that it is. */
import type { ReadableFile } from '../../storage/host-file.js';

export class LogRing {
  readonly file: ReadableFile;
  /** Bytes. */
  readonly length: number;
  readonly #offset: number;

  constructor(file: ReadableFile, place: { readonly offset: number; readonly length: number }) {
    this.file = file;
    this.length = place.length;
    this.#offset = place.offset;
  }

  /** Position in the ring of what lies `distance` bytes behind `at`. */
  after(at: number, distance: number): number {
    return (at + distance) % this.length;
  }

  /** Where a position of the ring lies in the file. */
  fileOffset(at: number): number {
    return this.#offset + at;
  }

  /** Fills `target` from `at` on, across the end of the ring; it is not longer than the ring. */
  read(target: Buffer, at: number): void {
    const first = Math.min(target.length, this.length - at);
    this.file.readExact(target, 0, first, this.#offset + at);
    this.file.readExact(target, first, target.length - first, this.#offset);
  }
}
