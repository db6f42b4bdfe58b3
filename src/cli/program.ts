/** All commands on one yargs instance, and what happens to a command line that fits none of them. */
import yargs, { type Argv } from 'yargs';
import { DiskError } from '../common/errors.js';
import { packageVersion } from '../common/version.js';
import { type Command, commandWords, globalOptions } from './command.js';
import { attachCommand, detachCommand } from './commands/attach.js';
import { baseGroup } from './commands/base.js';
import { deleteCommand, renameCommand, setCommand } from './commands/change.js';
import { cloneCommand } from './commands/clone.js';
import { createCommand } from './commands/create.js';
import { daemonGroup } from './commands/daemon.js';
import { gcCommand } from './commands/gc.js';
import { importCommand } from './commands/import.js';
import { infoCommand } from './commands/info.js';
import { listCommand } from './commands/list.js';
import { mountCommand, unmountCommand } from './commands/mount.js';
import { pathCommand } from './commands/path.js';
import { snapshotGroup } from './commands/snapshot.js';
import { statsCommand } from './commands/stats.js';
import { treeCommand } from './commands/tree.js';
import { completionCommand, completions } from './completion.js';

/** In the order of the help. */
const COMMANDS: readonly Command[] = [
  daemonGroup,
  createCommand,
  importCommand,
  listCommand,
  infoCommand,
  treeCommand,
  renameCommand,
  deleteCommand,
  setCommand,
  pathCommand,
  attachCommand,
  detachCommand,
  mountCommand,
  unmountCommand,
  snapshotGroup,
  cloneCommand,
  baseGroup,
  gcCommand,
  statsCommand,
  completionCommand,
];

/** Our words for what yargs finds wrong: lower case, one line, as every other message. */
const MESSAGES = {
  'Not enough non-option arguments: got %s, need at least %s': {
    one: 'an argument is missing: got %s, need %s',
    other: 'arguments are missing: got %s, need %s',
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
  'Did you mean %s?': 'unknown command, did you mean "%s"?',
};

/**
 * The whole command line. Running it parses `argv`, does the work, and fails with a `DiskError`: `usage` for a
 * command line that fits nothing.
 */
export function buildProgram(argv: readonly string[]): Argv {
  const base = yargs([...argv])
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
      'strip-aliased': true,
    })
    .wrap(Math.min(100, process.stdout.columns ?? 100))
    .exitProcess(false)
    .version(packageVersion())
    .help()
    .strict()
    .recommendCommands()
    .completion('yargs-completion', false, completions)
    .demandCommand(1, 'which command?')
    .epilogue('Example:\n  layerdisk create web --disk 20G && layerdisk attach web')
    // It must throw: if it only reported, yargs would go on and run the command.
    .fail((message: string | null, error: Error | undefined) => {
      if (message === null && error !== undefined) throw error;
      if (error instanceof DiskError) throw error;
      throw new DiskError('usage', message ?? 'this command line fits no command', {
        hint: ['layerdisk', ...commandWords(COMMANDS, argv), '--help'].join(' '),
      });
    });
  return COMMANDS.reduce((all, command) => command.register(all), globalOptions(base));
}
