/**
 * Where a command's words go: results to stdout, everything else to stderr, colour only where it is
 * wanted.
 */
import { DiskError, errnoName } from '../common/errors.js';
import { EXIT_OK } from './exit-codes.js';

/** Escapes, and what turns the direction of the text around it: neither must reach a terminal. */
const CONTROL_CHARACTERS =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what it is about
  /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

export type Style = 'bold' | 'red' | 'green' | 'dim';

const STYLES: Readonly<Record<Style, string>> = {
  bold: '\u001b[1m',
  red: '\u001b[31m',
  green: '\u001b[32m',
  dim: '\u001b[2m',
};
const RESET = '\u001b[0m';
// biome-ignore lint/suspicious/noControlCharactersInRegex: what `style` writes
const OWN_STYLES = /(\u001b\[(?:0|1|2|31|32)m)/;

/** A stream that a command writes to, as far as this room needs to know it. */
export interface TextStream {
  readonly isTTY?: boolean;
  readonly columns?: number;
  /** Whether so much is on its way to a reader that no more should follow for now. */
  readonly writableNeedDrain?: boolean;
  write(text: string): unknown;
  once?(event: 'drain', listener: () => void): unknown;
}

/** One stream with its manners. */
export class Output {
  readonly #stream: TextStream;
  readonly #colour: boolean;
  #draining: Promise<void> | undefined;
  /** Whether box characters can be shown. */
  readonly unicode: boolean;
  readonly isTerminal: boolean;

  /**
   * @param colour whether colour is wanted at all; a stream that is no terminal gets none anyway.
   */
  constructor(stream: TextStream, env: NodeJS.ProcessEnv, colour: boolean) {
    this.#stream = stream;
    this.isTerminal = stream.isTTY === true;
    const refused = (env.NO_COLOR ?? '') !== '' || env.TERM === 'dumb';
    this.#colour = colour && this.isTerminal && !refused;
    this.unicode = this.isTerminal && /utf-?8/i.test(env.LC_ALL || env.LC_CTYPE || env.LANG || '');
  }

  get columns(): number {
    // A pseudo-terminal that nobody has sized says 0.
    return this.#stream.columns || 80;
  }

  /** Writes one line. Text that came from outside must have been made `plain` before. */
  line(text: string): void {
    this.#stream.write(`${text}\n`);
  }

  /**
   * Waits for a reader that does not keep up: what it has not taken lies in our memory.
   * @returns undefined where there is nothing to wait for.
   */
  drained(): Promise<void> | undefined {
    if (this.#stream.writableNeedDrain !== true) return undefined;
    this.#draining ??= new Promise((done) => {
      this.#stream.once?.('drain', () => {
        this.#draining = undefined;
        done();
      });
    });
    return this.#draining;
  }

  /** Writes text as it is: for lines that are drawn over. */
  raw(text: string): void {
    this.#stream.write(text);
  }

  /** Writes one line with its styles: all else in it made harmless. */
  plainLine(line: string): void {
    const parts = this.#colour ? line.split(OWN_STYLES) : [line];
    this.line(parts.map((part, index) => (index % 2 === 0 ? plain(part) : part)).join(''));
  }

  style(style: Style, text: string): string {
    return this.#colour ? `${STYLES[style]}${text}${RESET}` : text;
  }
}

/** Text from a user or a file, made harmless for a terminal. */
export function plain(text: string): string {
  return text.replace(CONTROL_CHARACTERS, '?');
}

/**
 * Makes `layerdisk list | head -1` quiet: when the reader of stdout is gone there is nothing left
 * to do. When stdout cannot be written for another reason (a full disk) the command fails.
 * @param report says what went wrong. @returns the exit code.
 */
export function watchStandardStreams(
  stdout: NodeJS.WriteStream,
  stderr: NodeJS.WriteStream,
  report: (error: DiskError) => number,
): void {
  stdout.on('error', (error) => {
    const errno = errnoName(error) ?? 'EIO';
    if (errno === 'EPIPE') process.exit(process.exitCode ?? EXIT_OK);
    const message = `cannot write the output (${errno})`;
    const hint = 'see where it goes';
    process.exit(report(new DiskError('failed', message, { errno, hint, cause: error })));
  });
  // With nobody to read what goes wrong there is nobody to tell.
  stderr.on('error', () => {});
}
