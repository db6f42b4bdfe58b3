/** Dashes that other programs take for words, and yargs drops or takes for something else. */
import { DiskError } from '../common/errors.js';
import { sortWords } from './words.js';

/** The words that yargs looks for options in. */
export function beforeDashes(argv: readonly string[]): readonly string[] {
  const end = argv.indexOf('--');
  return end === -1 ? argv : argv.slice(0, end);
}

/**
 * What stands behind `--` as positionals, which yargs would leave out. A file that begins with a
 * dash is named by its folder then, as one does without `--`.
 */
export function settleDashes(argv: readonly string[]): readonly string[] {
  const before = beforeDashes(argv);
  // What follows is QEMU's.
  if (before.length === argv.length || sortWords(before).plain[0] === 'run') return argv;
  const after = argv.slice(before.length + 1);
  return [...before, ...after.map((word) => (/^-./.test(word) ? `./${word}` : word))];
}

/** What somebody may have meant by a dash, where there is something else that does it. */
const INSTEAD: Readonly<Record<string, string>> = {
  export: 'name a file; as a stream: snapshot take, then cat "$(layerdisk path VM@SNAPSHOT)"',
  import: 'name a file: images are read here and there, not from one end to the other',
};

/**
 * A dash alone is an empty text to yargs, or nothing at all: what it stands for elsewhere, standard
 * input or output, is asked for in vain.
 * @param args what yargs made of `words`.
 * @throws DiskError `usage` when a dash is in the one and not in the other.
 */
export function refuseLoneDash(args: object, words: readonly string[]): void {
  const dashes = (some: readonly unknown[]) => some.filter((one) => one === '-').length;
  if (dashes(words) <= dashes(Object.values(args).flat())) return;
  const [command = ''] = sortWords(words).plain;
  throw new DiskError('usage', `${command}: "-" is no name, and no standard input or output here`, {
    hint: INSTEAD[command] ?? `layerdisk ${command} --help`,
  });
}

/** Names that mean other files in the daemon than in the process that they were given to. */
const OWN_FILE = /^(--[a-z-]+=)?(\/dev\/(stdin|stdout|stderr|fd\/.*)|\/proc\/(thread-)?self\/.*)$/s;

/**
 * The daemon opens what is imported and exported: `/dev/stdout` would be its own log.
 * @throws DiskError `usage`.
 */
export function refuseOwnFiles(words: readonly string[]): void {
  const hint = INSTEAD[sortWords(words).plain[0] ?? ''];
  const own = words.find((word) => OWN_FILE.test(word));
  if (hint === undefined || own === undefined) return;
  const path = own.slice(own.indexOf('/'));
  throw new DiskError('usage', `${path} is another file to the daemon, which opens it`, { hint });
}
