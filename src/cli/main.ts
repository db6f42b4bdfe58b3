#!/usr/bin/env node
/** The command `layerdisk`: runs one command line and leaves with its exit code. */
import { reportError } from './error-report.js';
import { Output, watchStandardStreams } from './output.js';
import { asksForHelp, buildProgram, helpText } from './program.js';

const argv = process.argv.slice(2);
watchStandardStreams(process.stdout, process.stderr);
try {
  if (asksForHelp(argv)) process.stdout.write(`${await helpText(argv)}\n`);
  else await (await buildProgram(argv)).parseAsync();
} catch (error) {
  // Looked for by hand, since the error may be that the command line could not be read.
  const stderr = new Output(process.stderr, process.env, !argv.includes('--no-color'));
  process.exitCode = reportError(error, stderr, {
    json: argv.includes('--json'),
    debug: argv.includes('--debug'),
  });
}
