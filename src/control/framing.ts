/**
 * Newline-delimited JSON: bytes of a socket to whole lines of text and back, with a limit on both.
 */
import { isUtf8 } from 'node:buffer';

const NEWLINE = 0x0a;
const FIRST_ALLOCATION = 4096;

/**
 * Why a peer's bytes cannot be read on. Not a `DiskError`: the two ends turn it into different
 * ones.
 */
export class FramingError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'FramingError';
  }
}

/**
 * Cuts a stream into lines, however the stream was split or joined on the way.
 *
 * INVARIANT: holds at most `maxBytes` of an unfinished line, in one buffer.
 */
export class LineDecoder {
  readonly #maxBytes: number;
  #held: Buffer = Buffer.alloc(0);
  #length = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Bytes of the unfinished line. */
  get pending(): number {
    return this.#length;
  }

  /**
   * Takes the next bytes and yields the lines they complete, without their newline; empty lines are
   * left out. The iteration must be run to its end before the next call.
   * @throws FramingError for a line above the limit, or one that is not UTF-8 text; nothing can
   * follow it.
   */
  *push(chunk: Buffer): Generator<string> {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end !== -1; end = chunk.indexOf(NEWLINE, start)) {
      const line = this.#finish(chunk.subarray(start, end));
      start = end + 1;
      if (line !== '') yield line;
    }
    this.#hold(chunk.subarray(start));
  }

  #finish(tail: Buffer): string {
    if (this.#length === 0) {
      this.#checkLength(tail.length);
      return decodeText(tail);
    }
    this.#hold(tail);
    const line = decodeText(this.#held.subarray(0, this.#length));
    this.#length = 0;
    this.#held = Buffer.alloc(0);
    return line;
  }

  #hold(bytes: Buffer): void {
    if (bytes.length === 0) return;
    const length = this.#length + bytes.length;
    this.#checkLength(length);
    if (length > this.#held.length) {
      const grown = Math.min(
        Math.max(length, this.#held.length * 2, FIRST_ALLOCATION),
        this.#maxBytes,
      );
      const larger = Buffer.allocUnsafe(grown);
      this.#held.copy(larger, 0, 0, this.#length);
      this.#held = larger;
    }
    bytes.copy(this.#held, this.#length);
    this.#length = length;
  }

  #checkLength(length: number): void {
    if (length > this.#maxBytes) {
      throw new FramingError(`a message is longer than ${this.#maxBytes} bytes`);
    }
  }
}

function decodeText(bytes: Buffer): string {
  if (!isUtf8(bytes) || bytes.includes(0)) throw new FramingError('a message is not UTF-8 text');
  return bytes.toString('utf8').trim();
}

/** One message as its line. JSON escapes newlines, so the text has none but the last. */
export function encodeMessage(message: object): string {
  return `${JSON.stringify(message)}\n`;
}
