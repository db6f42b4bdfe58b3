/** How an error leaves the program: one line and a hint for people, one object for scripts, a code for both. */
import { DiskError, type ErrorCode } from '../common/errors.js';
import { EXIT_CODES } from './exit-codes.js';
import { type Output, plain } from './output.js';

export interface ReportOptions {
  readonly json: boolean;
  readonly debug: boolean;
}

/** What to do when the error itself knows nothing better. */
const USUAL_HINTS: Readonly<Record<Exclude<ErrorCode, 'interrupted'>, string>> = {
  failed: 'see the log of the daemon, or run again with --debug',
  usage: 'see layerdisk --help',
  unreachable: 'start it: layerdisk daemon start',
  'not-found': 'see what there is: layerdisk list',
  exists: 'choose another name',
  busy: 'try again when it is free',
  damaged: 'nothing was changed; compare the file with its source, it may be incomplete',
  leaks: 'give the space back: layerdisk gc',
  'not-permitted': 'check modes and owners, or run as root',
  'not-supported': 'nothing was changed; see the README for what can be done',
};

/** Writes the error to stderr. @returns the exit code. */
export function reportError(error: unknown, output: Output, options: ReportOptions): number {
  const known = error instanceof DiskError ? error : describeBug(error);
  const { code, message } = known;
  // Whoever pressed ctrl-C knows what to do.
  const hint = known.hint ?? (code === 'interrupted' ? undefined : USUAL_HINTS[code]);
  if (options.json) {
    output.line(
      JSON.stringify({ error: hint === undefined ? { code, message } : { code, message, hint } }),
    );
  } else {
    output.line(`${output.style('red', 'layerdisk:')} ${plain(message)}`);
    if (hint !== undefined) output.line(`hint: ${plain(hint)}`);
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
