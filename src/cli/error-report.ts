/** How an error leaves the program: one line and a hint for people, one object for scripts, a code for both. */
import { DiskError } from '../common/errors.js';
import { EXIT_CODES } from './exit-codes.js';
import { type Output, plain } from './output.js';

export interface ReportOptions {
  readonly json: boolean;
  readonly debug: boolean;
}

/** Writes the error to stderr. @returns the exit code. */
export function reportError(error: unknown, output: Output, options: ReportOptions): number {
  const known = error instanceof DiskError ? error : describeBug(error);
  if (options.json) {
    const { code, message, hint } = known.toJSON();
    const body = hint === undefined ? { code, message } : { code, message, hint };
    output.line(JSON.stringify({ error: body }));
  } else {
    output.line(`${output.style('red', 'layerdisk:')} ${plain(known.message)}`);
    if (known.hint !== undefined) output.line(`hint: ${plain(known.hint)}`);
  }
  if (options.debug && error instanceof Error) output.line(error.stack ?? String(error));
  return EXIT_CODES[known.code];
}

/** Anything but a `DiskError` is a bug of ours, and said to be one. */
function describeBug(error: unknown): DiskError {
  const message = error instanceof Error ? error.message : String(error);
  return new DiskError('failed', `unexpected error: ${message}`, {
    hint: 'this is a bug in layerdisk; run again with --debug for its details',
    cause: error,
  });
}
