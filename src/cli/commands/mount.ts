/** `mount` and `unmount`: a file system of a disk in a folder. */
import { resolve } from 'node:path';
import { parseCount, parseTarget } from '../arguments.js';
import { defineCommand, OWN_OPTIONS } from '../command.js';
import { targetOptions } from '../shared-options.js';

export const mountCommand = defineCommand({
  command: 'mount <target> <directory>',
  describe: 'Mount a file system of a disk',
  example: 'layerdisk mount web@before-upgrade /mnt --partition 1 --read-only',
  options: (yargs) =>
    targetOptions(yargs)
      .positional('directory', {
        type: 'string',
        demandOption: true,
        describe: 'Folder to mount on',
      })
      .option('partition', {
        group: OWN_OPTIONS,
        type: 'string',
        requiresArg: true,
        describe: 'Number of the partition',
      })
      .option('read-only', { group: OWN_OPTIONS, type: 'boolean', describe: 'Refuse writes' }),
  run: async (session, args) => {
    const partition = args.partition;
    const result = await session.call('mount', {
      ...parseTarget(args.target, args.disk),
      directory: resolve(args.directory),
      ...(partition === undefined ? {} : { partition: parseCount(partition, '--partition') }),
      ...(args['read-only'] === true ? { readOnly: true } : {}),
    });
    session.show(result, {
      names: () => [result.directory],
      human: () => [`mounted ${result.source} (${result.fileSystem}) on ${result.directory}`],
    });
  },
});

export const unmountCommand = defineCommand({
  command: 'unmount <directory>',
  describe: 'Unmount what `mount` mounted',
  example: 'layerdisk unmount /mnt',
  options: (yargs) =>
    yargs.positional('directory', {
      type: 'string',
      demandOption: true,
      describe: 'Folder it is mounted on',
    }),
  run: async (session, args) => {
    const directory = resolve(args.directory);
    const result = await session.call('unmount', { directory });
    session.show(result, { names: () => [], human: () => [`unmounted ${directory}`] });
  },
});
