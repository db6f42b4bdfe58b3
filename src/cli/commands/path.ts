/** `path`: where the raw file of a disk is. */
import { parseTarget } from '../arguments.js';
import { defineCommand } from '../command.js';
import { targetOptions } from '../shared-options.js';

export const pathCommand = defineCommand({
  command: 'path <target>',
  describe: 'Print the path of the raw file of a disk',
  example: 'qemu-system-x86_64 -drive format=raw,file="$(layerdisk path web)"',
  options: targetOptions,
  run: async (session, args) => {
    const result = await session.call('path', parseTarget(args.target, args.disk));
    session.show(result, { names: () => [result.path], human: () => [result.path] });
  },
});
