/** `list`: the VMs of the store. */
import { defineCommand } from '../command.js';
import type { Session } from '../session.js';
import { spaceWarning, vmTable } from '../views.js';

/** On stderr: with `--json` a list is one array, which has no place for it. */
async function warnOfSpace(session: Session): Promise<void> {
  if (session.quiet) return;
  const { space } = await session.call('daemon.status', {});
  const warning = spaceWarning(space);
  if (warning !== undefined) session.stderr.line(`layerdisk: warning: ${warning}`);
}

export const listCommand = defineCommand({
  command: 'list',
  describe: 'List the VMs',
  example: 'layerdisk list --json',
  options: (yargs) => yargs,
  run: async (session) => {
    const vms = await session.call('list', {});
    await warnOfSpace(session);
    session.show(vms, {
      names: () => vms.map((vm) => vm.name),
      human: (_, output) =>
        vms.length === 0 ? ['no VMs yet: layerdisk create --help'] : vmTable(output, vms),
    });
  },
});
