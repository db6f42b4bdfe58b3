/** Writes the block table of an image whose blocks come in ascending order. */
import { invariant } from '../common/assert.js';
import type { Field } from '../common/struct.js';
import { KiB } from '../common/units.js';
import type { OutputFile } from '../storage/output-files.js';

/** Bytes that are kept; a table of 256 MiB is written in 4,096 pieces. */
const PIECE_SIZE = 64 * KiB;

export interface TableShape<T> {
  /** Offset in the file. */
  readonly offset: number;
  /** Entries. */
  readonly count: number;
  readonly entry: Field<T>;
  /** What every byte of an entry is that is never set. */
  readonly fill: 0 | 0xff;
}

/**
 * INVARIANT: memory is one piece, whatever the table's size; entries are set in ascending order.
 */
export class TableWriter<T> {
  readonly #file: OutputFile;
  readonly #shape: TableShape<T>;
  readonly #bytes: Buffer;
  readonly #perPiece: number;
  /** The piece that is in `#bytes`. */
  #piece = 0;
  #isSet = false;

  constructor(file: OutputFile, shape: TableShape<T>) {
    this.#file = file;
    this.#shape = shape;
    this.#bytes = Buffer.alloc(PIECE_SIZE, shape.fill);
    this.#perPiece = PIECE_SIZE / shape.entry.size;
  }

  set(index: number, value: T): void {
    invariant(index < this.#shape.count, `entry ${index} of a table of ${this.#shape.count}`);
    const piece = Math.floor(index / this.#perPiece);
    if (piece !== this.#piece) this.#moveTo(piece);
    const { entry } = this.#shape;
    entry.write(this.#bytes, (index - piece * this.#perPiece) * entry.size, value);
    this.#isSet = true;
  }

  /** Writes what is left. */
  finish(): void {
    this.#moveTo(Math.ceil(this.#shape.count / this.#perPiece));
  }

  /** Writes the pieces before `piece`; of a new file's zeroes there is no need to. */
  #moveTo(piece: number): void {
    invariant(piece >= this.#piece, 'entries are set in ascending order');
    const { offset, count, entry, fill } = this.#shape;
    for (; this.#piece < piece; this.#piece += 1) {
      if (this.#isSet || fill !== 0) {
        const at = this.#piece * PIECE_SIZE;
        const length = Math.min(PIECE_SIZE, count * entry.size - at);
        this.#file.write(this.#bytes, 0, length, offset + at);
      }
      if (this.#isSet) this.#bytes.fill(fill);
      this.#isSet = false;
    }
  }
}
