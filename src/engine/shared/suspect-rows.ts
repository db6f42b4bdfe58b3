/**
 * Which volume rows had a failed flush, written down so that it outlives the process: whoever has
 * such a disk open must not hear of a success from the next daemon, either.
 *
 * A nameless file of one byte a row, made by whoever starts the engine. Used by every thread.
 */
import { readSync, writeSync } from 'node:fs';

/** Stands for a file that is not there: nothing outlives this process. */
export const NOT_KEPT = -1;

export class SuspectRows {
  readonly #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
  }

  has(row: number): boolean {
    if (this.#fd === NOT_KEPT) return false;
    const byte = new Uint8Array(1);
    return readSync(this.#fd, byte, 0, 1, row) === 1 && byte[0] === 1;
  }

  mark(row: number): void {
    this.#set(row, 1);
  }

  /** The row holds another volume now. */
  clear(row: number): void {
    if (this.has(row)) this.#set(row, 0);
  }

  #set(row: number, value: number): void {
    if (this.#fd !== NOT_KEPT) writeSync(this.#fd, Uint8Array.of(value), 0, 1, row);
  }
}
