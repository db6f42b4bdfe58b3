/**
 * How an error leaves the program: one line and a hint for people, one object for scripts, a code
 * for both.
 */
import { DiskError, type ErrorCode } from '../common/errors.js';
import { harmlessJson } from '../common/harmless-json.js';
import type { ChosenPlaces } from '../common/places.js';
import { shellWord } from '../common/shell-word.js';
import { EXIT_CODES } from './exit-codes.js';
import { type Output, plain } from './output.js';

export interface ReportOptions {
  /** The store and the socket that were typed. */
  readonly places: ChosenPlaces;
  /** All there are. */
  readonly commands: readonly string[];
  readonly json: boolean;
  readonly debug: boolean;
}

/** What to do where the error itself does not say. */
const DEFAULT_HINTS: Readonly<Partial<Record<ErrorCode, string>>> = {
  failed: 'run it again with --debug for details',
  usage: 'layerdisk --help',
  unreachable: 'layerdisk daemon start',
  'not-found': 'see what there is: layerdisk list',
  exists: 'take another name; see what there is: layerdisk list',
  busy: 'try again when nobody uses it; an attached disk: layerdisk detach',
  damaged: 'take the file from a backup',
  leaks: 'layerdisk gc',
  'not-permitted': 'run as root, or look at the owner and the mode of the file',
  'not-supported': 'see what is: layerdisk --help',
};

/** Of a file that is not there, which no list of VMs helps to find. */
const PATH_HINT =
  'see whether the path is written right and what it lies on is mounted: ls, findmnt';

function isOfPath({ code, errno }: DiskError): boolean {
  return code === 'not-found' && (errno === 'ENOENT' || errno === 'ENOTDIR');
}

/** Writes the error to stderr. @returns the exit code. */
export function reportError(error: unknown, output: Output, options: ReportOptions): number {
  const known = error instanceof DiskError ? error : describeBug(error);
  const { code, message } = known;
  const advice = known.hint ?? (isOfPath(known) ? PATH_HINT : DEFAULT_HINTS[code]);
  const hint = advice === undefined ? undefined : withPlaces(advice, options);
  if (options.json) {
    const body = hint === undefined ? { code, message } : { code, message, hint };
    output.line(harmlessJson(JSON.stringify({ error: body })));
  } else {
    output.line(`${output.style('red', 'layerdisk:')} ${plain(message)}`);
    if (hint !== undefined) output.line(`hint: ${plain(hint)}`);
  }
  if (options.debug && error instanceof Error) output.line(error.stack ?? String(error));
  return EXIT_CODES[code];
}

/**
 * A hint whose commands are meant for the daemon that this one was, and can be typed as they are.
 */
function withPlaces(hint: string, { places, commands }: ReportOptions): string {
  const options = [
    ...(places.store === undefined ? [] : ['--store', shellWord(places.store)]),
    ...(places.socket === undefined ? [] : ['--socket', shellWord(places.socket)]),
  ].join(' ');
  if (options === '') return hint;
  // Help needs no daemon.
  const named = new RegExp(`\\blayerdisk (?=(${commands.join('|')})\\b)(?![a-z -]*--help)`, 'g');
  return hint.replace(named, () => `layerdisk ${options} `);
}

/** Anything but a `DiskError` is a bug of ours, and said to be one. */
function describeBug(error: unknown): DiskError {
  const message = error instanceof Error ? error.message : String(error);
  return new DiskError('failed', `unexpected error: ${message}`, {
    hint: 'this is a bug in layerdisk; run again with --debug for its details',
    cause: error,
  });
}
