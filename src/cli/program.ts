/**
 * All commands on one yargs instance, and what happens to a command line that fits none of them.
 */
import yargs, { type Argv, type FallbackCompletionFunction } from 'yargs';
import { DiskError } from '../common/errors.js';
import { VERSION } from '../common/version.js';
import { type Command, globalOptions } from './command.js';
import { beforeDashes, refuseLoneDash, refuseOwnFiles, settleDashes } from './dashes.js';
import { nameCommand, nearest, sortWords } from './words.js';

/** How the shell asks what may follow: before the words of the line up to the cursor. */
const COMPLETION_FLAG = '--get-yargs-completions';

const WHICH_COMMAND = 'which command?';

type Load = () => Promise<Command>;

/**
 * In the order of the help. Loaded when wanted: each costs a command that is another one time to
 * start.
 */
const COMMANDS: Readonly<Record<string, Load>> = {
  daemon: async () => (await import('./commands/daemon.js')).daemonGroup,
  create: async () => (await import('./commands/create.js')).createCommand,
  import: async () => (await import('./commands/import.js')).importCommand,
  list: async () => (await import('./commands/list.js')).listCommand,
  info: async () => (await import('./commands/info.js')).infoCommand,
  tree: async () => (await import('./commands/tree.js')).treeCommand,
  rename: async () => (await import('./commands/change.js')).renameCommand,
  delete: async () => (await import('./commands/change.js')).deleteCommand,
  set: async () => (await import('./commands/change.js')).setCommand,
  disk: async () => (await import('./commands/disk.js')).diskGroup,
  path: async () => (await import('./commands/path.js')).pathCommand,
  attach: async () => (await import('./commands/attach.js')).attachCommand,
  detach: async () => (await import('./commands/attach.js')).detachCommand,
  mount: async () => (await import('./commands/mount.js')).mountCommand,
  unmount: async () => (await import('./commands/mount.js')).unmountCommand,
  snapshot: async () => (await import('./commands/snapshot.js')).snapshotGroup,
  clone: async () => (await import('./commands/clone.js')).cloneCommand,
  'reset-identity': async () => (await import('./commands/clone.js')).resetIdentityCommand,
  export: async () => (await import('./commands/export.js')).exportCommand,
  run: async () => (await import('./commands/run.js')).runCommand,
  stop: async () => (await import('./commands/run.js')).stopCommand,
  console: async () => (await import('./commands/console.js')).consoleCommand,
  base: async () => (await import('./commands/base.js')).baseGroup,
  map: async () => (await import('./commands/map.js')).mapCommand,
  check: async () => (await import('./commands/check.js')).checkCommand,
  compact: async () => (await import('./commands/compact.js')).compactCommand,
  gc: async () => (await import('./commands/gc.js')).gcCommand,
  stats: async () => (await import('./commands/stats.js')).statsCommand,
  events: async () => (await import('./commands/events.js')).eventsCommand,
  completion: async () => (await import('./commands/completion.js')).completionCommand,
};

export const COMMAND_NAMES: readonly string[] = Object.keys(COMMANDS);

/**
 * The commands that a command line can mean: those whose names are in it, whatever else these words
 * may be. All of them where there is none, for the help and for "did you mean".
 */
function loadCommands(argv: readonly string[]): Promise<Command[]> {
  const all = Object.entries(COMMANDS);
  const named = argv[0] === COMPLETION_FLAG ? [] : all.filter(([name]) => argv.includes(name));
  return Promise.all((named.length > 0 ? named : all).map(([, load]) => load()));
}

/** Our words for what yargs finds wrong: lower case, one line, as every other message. */
const MESSAGES = {
  'Not enough non-option arguments: got %s, need at least %s': {
    // yargs chooses by how many there are, not by how many are missing.
    one: 'too few arguments: got %s, need %s',
    other: 'too few arguments: got %s, need %s',
  },
  'Too many non-option arguments: got %s, maximum of %s': {
    one: 'too many arguments: got %s, at most %s',
    other: 'too many arguments: got %s, at most %s',
  },
  'Missing required argument: %s': {
    one: 'missing option: --%s',
    other: 'missing options: %s',
  },
  'Unknown argument: %s': {
    one: 'unknown option or argument: %s',
    other: 'unknown options or arguments: %s',
  },
  'Unknown command: %s': { one: 'unknown command: %s', other: 'unknown commands: %s' },
  'Not enough arguments following: %s': 'no value for --%s',
  'Arguments %s and %s are mutually exclusive': '--%s and --%s exclude each other',
};

/**
 * @param found what yargs says is wrong; it does not say which word of the line it stumbled over
 * @param options and positionals of where it stopped reading
 */
function describeMisfit(
  loaded: readonly Command[],
  argv: readonly string[],
  found: string,
  options: ReadonlySet<string>,
): DiskError {
  const { plain } = sortWords(argv);
  const { path, unknown, choices, command } = nameCommand(COMMAND_NAMES, loaded, plain);
  const help = ['layerdisk', ...path, '--help'].join(' ');
  if (unknown !== undefined) return unknownCommand(path, unknown, choices, help);
  const positionals = command?.positionals ?? [];
  const known = new Set([...options].filter((name) => !positionals.includes(name)));
  const option = unknownOption(beforeDashes(argv), known);
  if (option === undefined) {
    // yargs knows a short option by its letter.
    const message = found.replace(/^(no value for -)-(?=.$)/, '$1');
    return new DiskError('usage', message, { hint: help });
  }
  const isEarly = path.length > 0 && argv.indexOf(option.word) < argv.indexOf(path.at(-1) ?? '');
  const hint = isEarly ? `options of a command stand behind its name: ${help}` : help;
  return new DiskError('usage', `unknown option: ${option.name}`, { hint });
}

/**
 * yargs counts words and asks for options that must be there before it looks for options that there
 * are not, and takes the word behind such an option for its value.
 */
function unknownOption(words: readonly string[], known: ReadonlySet<string>) {
  for (const word of words) {
    const [, long] = /^--([^=]+)/s.exec(word) ?? [];
    if (long !== undefined && !known.has(long)) return { word, name: `--${long}` };
    const [, letters = ''] = /^-([a-z]+)/i.exec(word) ?? [];
    if ([...letters].some((letter) => !known.has(letter))) return { word, name: word };
  }
  return undefined;
}

/** What yargs leaves out of its typings: which options there are, and their other names. */
interface KnownOptions {
  getOptions(): {
    readonly key: Readonly<Record<string, unknown>>;
    readonly alias: Readonly<Record<string, readonly string[]>>;
  };
}

function optionsOf(yargs: Argv): ReadonlySet<string> {
  const { key, alias } = (yargs as unknown as KnownOptions).getOptions();
  return new Set([...Object.keys(key), ...Object.values(alias).flat()]);
}

function unknownCommand(
  path: readonly string[],
  unknown: string,
  choices: readonly string[],
  help: string,
): DiskError {
  const near = nearest(unknown, choices);
  const message = `unknown command "${[...path, unknown].join(' ')}"`;
  const hint = near === undefined ? help : `did you mean "${[...path, near].join(' ')}"? ${help}`;
  return new DiskError('usage', message, { hint });
}

/** Adds the names that the daemon knows to what yargs knows. */
async function addCompletions(yargs: Argv, argv: readonly string[]): Promise<void> {
  const { completionNames } = await import('./completion.js');
  const names = await completionNames(argv.slice(1));
  const answer: FallbackCompletionFunction = (_current, _typed, known, done) => {
    known((_error, answers) => done([...(answers ?? []), ...names]));
  };
  yargs.completion('yargs-completion', false, answer);
}

/** A command behind `--` is none to yargs, which would do nothing and call that a success. */
function refuseHiddenCommand(argv: readonly string[]): void {
  const words = beforeDashes(argv);
  if (words.length === argv.length || sortWords(words).plain.length > 0) return;
  throw new DiskError('usage', WHICH_COMMAND, { hint: 'layerdisk --help' });
}

/** To yargs `--save-current=` is the option alone, as where a script's variable is not set. */
function refuseEmptyOptions(args: object, argv: readonly string[]): void {
  const words = beforeDashes(argv);
  for (const [index, word] of words.entries()) {
    const [, name = '', equals] = /^--([^=]+)(=?)$/s.exec(word) ?? [];
    if (name === '' || typeof Reflect.get(args, name) === 'boolean') continue;
    if (equals === '' && words[index + 1] !== '') continue;
    throw new DiskError('usage', `--${name} is empty`, { hint: `give --${name} a value` });
  }
}

/** To yargs a switch is off unless its value is `true`: `gc --dry-run=yes` would remove files. */
function refuseOddSwitches(args: object, argv: readonly string[]): void {
  for (const word of beforeDashes(argv)) {
    const [, name = '', value = ''] = /^--([^=]+)=(.*)$/s.exec(word) ?? [];
    if (typeof Reflect.get(args, name) !== 'boolean' || /^(true|false)$/.test(value)) continue;
    throw new DiskError('usage', `--${name}: "${value}" is neither true nor false`, {
      hint: `give --${name} alone, or leave it out`,
    });
  }
}

/** Under yargs `delete web --vm db` would delete the one and say nothing of the other. */
function refusePositionalOptions(loaded: readonly Command[], argv: readonly string[]): void {
  const words = beforeDashes(argv);
  const { path, command } = nameCommand(COMMAND_NAMES, loaded, sortWords(words).plain);
  for (const name of command?.positionals ?? []) {
    if (!words.some((word) => word === `--${name}` || word.startsWith(`--${name}=`))) continue;
    throw new DiskError('usage', `unknown option: --${name}`, {
      hint: ['layerdisk', ...path, '--help'].join(' '),
    });
  }
}

/** What yargs calls by itself, which its typings leave out. */
interface Internals {
  getInternalMethods?(): { getUsageInstance?(): { cacheHelpMessage?: () => void } };
}

/**
 * While a command works, yargs lays out its help in case somebody asks for it then, which takes
 * longer than all the rest of reading a command line. Here nobody asks.
 */
function keepNoHelp(yargs: Argv): void {
  const usage = (yargs as unknown as Internals).getInternalMethods?.().getUsageInstance?.();
  if (usage !== undefined) usage.cacheHelpMessage = () => {};
}

/**
 * The whole command line. Running it parses `argv`, does the work, and fails with a `DiskError`:
 * `usage` for a command line that fits nothing.
 */
export async function buildProgram(typed: readonly string[]): Promise<Argv> {
  refuseHiddenCommand(typed);
  const argv = typed[0] === COMPLETION_FLAG ? typed : settleDashes(typed);
  const commands = await loadCommands(argv);
  const base: Argv = yargs([...argv])
    .scriptName('layerdisk')
    .locale('en')
    // The typings want texts; plural forms are objects, as in yargs' own locale files.
    .updateStrings(MESSAGES as unknown as Record<string, string>)
    .usage('layerdisk COMMAND\n\nShows the layered disks of virtual machines as raw files.')
    .parserConfiguration({
      'boolean-negation': false,
      'camel-case-expansion': false,
      'dot-notation': false,
      'greedy-arrays': false,
      'parse-numbers': false,
      'parse-positional-numbers': false,
      // What follows is QEMU's; of other commands it is settled.
      'populate--': sortWords(argv).plain[0] === 'run',
      'strip-aliased': true,
    })
    .wrap(Math.min(100, process.stdout.columns || 100))
    .exitProcess(false)
    .version(VERSION)
    // Done by hand: yargs would take a VM that is named `help` for the question.
    .help(false)
    .strict()
    .demandCommand(1, WHICH_COMMAND)
    .check((args) => {
      refuseOddSwitches(args, argv);
      refuseEmptyOptions(args, argv);
      refusePositionalOptions(commands, argv);
      refuseLoneDash(args, argv);
      refuseOwnFiles(argv);
      return true;
    })
    .epilogue('Example:\n  layerdisk create web --disk 20G && layerdisk attach web')
    // It must throw: if it only reported, yargs would go on and run the command.
    .fail((message: string | null, error: Error | undefined) => {
      if (message === null && error !== undefined) throw error;
      if (error instanceof DiskError) throw error;
      const found = message ?? 'this command line fits no command';
      throw describeMisfit(commands, argv, found, optionsOf(base));
    });
  if (argv[0] === COMPLETION_FLAG) await addCompletions(base, argv);
  keepNoHelp(base);
  return commands.reduce((all, command) => command.register(all), globalOptions(base));
}

/** Whether a command line asks what there is to say instead of doing something. */
export function asksForHelp(argv: readonly string[]): boolean {
  const words = beforeDashes(argv);
  return words.includes('--help') || words.includes('-h') || sortWords(words).plain[0] === 'help';
}

/**
 * The help of the command that a command line names, or of as much of it as there is.
 * @throws DiskError `usage` where there is no such command.
 */
export async function helpText(argv: readonly string[]): Promise<string> {
  const { plain } = sortWords(argv);
  const wanted = plain[0] === 'help' ? plain.slice(1) : plain;
  const loaded = await loadCommands(wanted);
  const { path, unknown, choices } = nameCommand(COMMAND_NAMES, loaded, wanted);
  if (unknown !== undefined) {
    throw unknownCommand(path, unknown, choices, ['layerdisk', ...path, '--help'].join(' '));
  }
  const program = await buildProgram(wanted);
  return program.getHelp();
}
