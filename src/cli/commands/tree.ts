/** `tree`: snapshots and what stands on them. */
import { parseVm } from '../arguments.js';
import { defineCommand } from '../command.js';
import { treeLines, treeNames } from '../tree-view.js';

export const treeCommand = defineCommand({
  command: 'tree [vm]',
  describe: 'Show the snapshots of one VM or all as a tree; * is the current state',
  example: 'layerdisk tree web',
  options: (yargs) => yargs.positional('vm', { type: 'string', describe: 'Name of the VM' }),
  run: async (session, args) => {
    const roots = await session.call('tree', args.vm === undefined ? {} : { vm: parseVm(args.vm) });
    session.show(roots, {
      names: () => treeNames(roots),
      human: (_, output) => treeLines(output, roots),
    });
  },
});
