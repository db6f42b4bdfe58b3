/** The one error type of layerdisk: a code a script can act on, a message a person can act on. */

/**
 * The words that the control socket and `--json` errors carry; exit codes are numbered from them.
 */
export const ERROR_CODES = [
  'failed',
  'usage',
  'unreachable',
  'not-found',
  'exists',
  'busy',
  'damaged',
  'leaks',
  'not-permitted',
  'not-supported',
  'interrupted',
] as const;

export type ErrorCode = (typeof ERROR_CODES)[number];

/** What a `DiskError` looks like on the socket. */
export interface DiskErrorJson {
  readonly code: ErrorCode;
  readonly message: string;
  readonly hint?: string;
  readonly errno?: string;
}

export interface DiskErrorOptions {
  /** What the user can do about it: one line, usually a command. */
  readonly hint?: string;
  /**
   * The POSIX name a transport answers with (`ENOSPC`, `EIO`, ...), where one fits better than the
   * code's own.
   */
  readonly errno?: string;
  /** Whether the same may succeed later by itself: room that is missing now can be made. */
  readonly passing?: boolean;
  readonly cause?: unknown;
}

/**
 * An operating error: bad input, a missing file, a full disk, a damaged image. Programming errors
 * are plain `Error`s from `assert.ts` and are never turned into one of these.
 *
 * `message` says what went wrong with which thing, in one line, without a trailing full stop.
 */
export class DiskError extends Error {
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  readonly errno: string | undefined;
  readonly passing: boolean;

  constructor(code: ErrorCode, message: string, options: DiskErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'DiskError';
    this.code = code;
    this.hint = options.hint;
    this.errno = options.errno;
    this.passing = options.passing === true;
  }

  toJSON(): DiskErrorJson {
    return {
      code: this.code,
      message: this.message,
      ...(this.hint === undefined ? {} : { hint: this.hint }),
      ...(this.errno === undefined ? {} : { errno: this.errno }),
    };
  }

  static fromJSON(json: DiskErrorJson): DiskError {
    return new DiskError(json.code, json.message, {
      ...(json.hint === undefined ? {} : { hint: json.hint }),
      ...(json.errno === undefined ? {} : { errno: json.errno }),
    });
  }
}

/** The errno name (`ENOENT`, ...) of an error thrown by Node's `fs`, or undefined. */
export function errnoName(error: unknown): string | undefined {
  if (error instanceof DiskError) return error.errno;
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') {
    return error.code;
  }
  return undefined;
}
