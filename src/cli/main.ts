/** The command `layerdisk`: runs one command line. What starts it is `scripts/launcher.cjs`. */
import { DiskError, errnoName } from '../common/errors.js';
import { beforeDashes } from './dashes.js';
import { reportError } from './error-report.js';
import { Output, watchStandardStreams } from './output.js';
import { isSet, sortWords } from './words.js';

/**
 * Whatever happens is said on the standard streams and in `process.exitCode`.
 * @param argv the words behind the command's name.
 */
export async function runCommandLine(argv: readonly string[]): Promise<void> {
  let commands: readonly string[] = [];
  // Looked for by hand, since the error may be that the command line could not be read.
  const report = (error: unknown) => {
    const words = beforeDashes(argv);
    const stderr = new Output(process.stderr, process.env, !isSet(words, '--no-color'));
    return reportError(error, stderr, {
      places: sortWords(words).places,
      commands,
      json: isSet(words, '--json'),
      debug: isSet(words, '--debug'),
    });
  };
  watchStandardStreams(process.stdout, process.stderr, report);
  try {
    refuseRemovedFolder();
    // Not before: yargs asks where it is when it is loaded.
    const { asksForHelp, buildProgram, COMMAND_NAMES, helpText } = await import('./program.js');
    commands = COMMAND_NAMES;
    if (asksForHelp(argv)) process.stdout.write(`${await helpText(argv)}\n`);
    else await (await buildProgram(argv)).parseAsync();
  } catch (error) {
    process.exitCode = report(error);
  }
}

/** Whoever deletes the folder of a shell, or unmounts it, leaves it in one that has no name. */
function refuseRemovedFolder(): void {
  try {
    process.cwd();
  } catch (error) {
    const errno = errnoName(error) ?? String(error);
    throw new DiskError('failed', `the current folder is not there any more (${errno})`, {
      hint: 'go to another one first: cd /',
      cause: error,
    });
  }
}
