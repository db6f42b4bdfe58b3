/**
 * The shape of a command: its words for yargs, its global options, and a session that its work runs
 * in.
 */
import type { Argv } from 'yargs';
import { DiskError } from '../common/errors.js';
import { Session } from './session.js';

/** Options that every command takes. */
export interface GlobalArguments {
  readonly store?: string | undefined;
  readonly socket?: string | undefined;
  readonly json: boolean;
  readonly quiet: boolean;
  readonly progress: string;
  readonly 'no-color': boolean;
  readonly debug: boolean;
}

/** The heading of a command's own options; it puts them above the global ones. */
export const OWN_OPTIONS = 'Options:';

export type GlobalArgv = Argv<GlobalArguments>;

/** A command, or a word that stands before several of them. */
export interface Command {
  readonly name: string;
  /** The commands of a group. */
  readonly members?: readonly Command[];
  /** Names of what stands behind it without dashes. */
  readonly positionals?: readonly string[];
  /** Puts it on a yargs instance. */
  register(yargs: GlobalArgv): GlobalArgv;
}

export interface CommandDefinition<A extends GlobalArguments> {
  /** The command and its positionals as yargs writes them: `rename <vm> <name>`. */
  readonly command: string;
  /** What it does: one sentence, imperative. */
  readonly describe: string;
  /** One command line that works, shown under the help. */
  readonly example: string;
  /** More to know, shown above the example. */
  readonly notes?: string;
  /** Declares the positionals and options. */
  options(yargs: GlobalArgv): Argv<A>;
  /** Positionals and options that may be given more than once. */
  readonly repeatable?: readonly string[];
  run(session: Session, args: A): Promise<void>;
}

export function globalOptions(yargs: Argv): GlobalArgv {
  return yargs
    .option('store', { type: 'string', requiresArg: true, describe: 'Folder of the store' })
    .option('socket', { type: 'string', requiresArg: true, describe: 'Control socket' })
    .option('json', { type: 'boolean', default: false, describe: 'Print one JSON document' })
    .option('quiet', { alias: 'q', type: 'boolean', default: false, describe: 'Names only' })
    .option('progress', {
      type: 'string',
      requiresArg: true,
      default: 'auto',
      describe: 'Show long work: auto, plain, none',
    })
    .option('help', { alias: 'h', type: 'boolean', describe: 'Show help' })
    .option('no-color', { type: 'boolean', default: false, describe: 'No colour' })
    .option('debug', { type: 'boolean', default: false, describe: 'Stack traces of errors' })
    .group(
      ['store', 'socket', 'json', 'quiet', 'progress', 'no-color', 'debug', 'help', 'version'],
      'Global options:',
    );
}

/** What `--help` says of a command, and what it does. */
export function defineCommand<A extends GlobalArguments>(
  definition: CommandDefinition<A>,
): Command {
  const { command, describe, notes, example } = definition;
  const positionals = [...command.matchAll(/[<[]([a-z]+)/g)].map(([, name = '']) => name);
  const epilogue = `${notes === undefined ? '' : `${notes}\n\n`}Example:\n  ${example}`;
  const register = (yargs: GlobalArgv) =>
    yargs.command<A>({
      command,
      describe,
      builder: (argv) => definition.options(argv).epilogue(epilogue),
      handler: async (parsed) => {
        // The typings add camel-case twins of all keys, which the parser does not make here.
        const args = parsed as unknown as A;
        refuseRepeats(args, definition.repeatable ?? [], positionals);
        const session = new Session(args);
        try {
          await definition.run(session, args);
        } finally {
          session.close();
        }
      },
    });
  return { name: command.split(' ', 1)[0] ?? command, positionals, register };
}

/** A word before the commands that belong together: `snapshot take`. */
export function defineGroup(name: string, describe: string, members: readonly Command[]): Command {
  const missing = `${name}: which command?`;
  const register = (yargs: GlobalArgv) =>
    yargs.command({
      command: name,
      describe,
      builder: (argv) =>
        members
          .reduce((all, member) => member.register(all), argv)
          .demandCommand(1, missing)
          .epilogue(`Example:\n  layerdisk ${name} COMMAND --help`),
      handler: () => {
        throw new DiskError('usage', missing, { hint: `layerdisk ${name} --help` });
      },
    });
  return { name, members, register };
}

/**
 * yargs makes a list of an option that is given twice, and an empty text of `--option=`: neither
 * was meant.
 */
function refuseRepeats(
  args: object,
  repeatable: readonly string[],
  positionals: readonly string[],
): void {
  for (const [key, value] of Object.entries(args)) {
    if (key === '_' || repeatable.includes(key)) continue;
    if (Array.isArray(value)) {
      const message = `--${key} is given more than once`;
      throw new DiskError('usage', message, { hint: `give --${key} once` });
    }
    if (value === '') {
      const name = positionals.includes(key) ? key : `--${key}`;
      throw new DiskError('usage', `${name} is empty`, { hint: `give ${name} a value` });
    }
  }
}
