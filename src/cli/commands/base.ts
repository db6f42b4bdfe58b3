/** `base accept`: agreeing to a base image that changed. */
import { parseVm } from '../arguments.js';
import { defineCommand, defineGroup } from '../command.js';
import { plain } from '../output.js';

const acceptCommand = defineCommand({
  command: 'accept <vm>',
  describe: 'Accept the base images of a VM as they are now, although they changed',
  notes:
    'A base that changed under a VM changes what its disks read: accept it only if you know ' +
    'why it did.',
  example: 'layerdisk base accept web',
  options: (yargs) =>
    yargs.positional('vm', { type: 'string', demandOption: true, describe: 'Name of the VM' }),
  run: async (session, args) => {
    const result = await session.call('base.accept', { vm: parseVm(args.vm) });
    session.show(result, {
      names: () => result.accepted,
      human: () =>
        result.accepted.length === 0
          ? ['no base image had changed']
          : result.accepted.map((path) => `accepted ${plain(path)}`),
    });
  },
});

export const baseGroup = defineGroup('base', 'Look after the base images that VMs stand on', [
  acceptCommand,
]);
