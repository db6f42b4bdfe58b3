/** The command `layerdisk`: runs one command line. What starts it is `scripts/launcher.cjs`. */
import { beforeDashes } from './dashes.js';
import { reportError } from './error-report.js';
import { Output, watchStandardStreams } from './output.js';
import { asksForHelp, buildProgram, COMMAND_NAMES, helpText } from './program.js';
import { sortWords } from './words.js';

/**
 * Whatever happens is said on the standard streams and in `process.exitCode`.
 * @param argv the words behind the command's name.
 */
export async function runCommandLine(argv: readonly string[]): Promise<void> {
  watchStandardStreams(process.stdout, process.stderr);
  try {
    if (asksForHelp(argv)) process.stdout.write(`${await helpText(argv)}\n`);
    else await (await buildProgram(argv)).parseAsync();
  } catch (error) {
    // Looked for by hand, since the error may be that the command line could not be read.
    const stderr = new Output(process.stderr, process.env, !argv.includes('--no-color'));
    process.exitCode = reportError(error, stderr, {
      places: sortWords(beforeDashes(argv)).places,
      commands: COMMAND_NAMES,
      json: argv.includes('--json'),
      debug: argv.includes('--debug'),
    });
  }
}
