/** `list`: the VMs of the store. */
import { defineCommand } from '../command.js';
import { vmTable } from '../views.js';

export const listCommand = defineCommand({
  command: 'list',
  describe: 'List the VMs',
  example: 'layerdisk list --json',
  options: (yargs) => yargs,
  run: async (session) => {
    const vms = await session.call('list', {});
    session.show(vms, {
      names: () => vms.map((vm) => vm.name),
      human: (_, output) =>
        vms.length === 0 ? ['no VMs yet: layerdisk create --help'] : vmTable(output, vms),
    });
  },
});
