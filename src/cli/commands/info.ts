/** `info`: everything about a VM, or about an image file without asking the daemon. */
import { parseVm } from '../arguments.js';
import { defineCommand } from '../command.js';
import { vmLines } from '../views.js';

export const infoCommand = defineCommand({
  command: 'info <vm>',
  describe: 'Show a VM',
  example: 'layerdisk info web',
  options: (yargs) =>
    yargs.positional('vm', { type: 'string', demandOption: true, describe: 'Name of the VM' }),
  run: async (session, args) => {
    const vm = await session.call('info', { vm: parseVm(args.vm) });
    session.show(vm, { names: () => [vm.name], human: (_, output) => vmLines(output, vm) });
  },
});
