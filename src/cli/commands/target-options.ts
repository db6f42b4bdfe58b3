/** The positional `VM[@SNAP]` and `--disk`, which every command on one disk takes. */
import { type GlobalArgv, OWN_OPTIONS } from '../command.js';

export function targetOptions(yargs: GlobalArgv) {
  return yargs
    .positional('target', { type: 'string', demandOption: true, describe: 'VM or VM@SNAPSHOT' })
    .option('disk', {
      group: OWN_OPTIONS,
      type: 'string',
      requiresArg: true,
      describe: 'Which disk, where there are several',
    });
}
