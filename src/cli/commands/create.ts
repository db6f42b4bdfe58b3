/** `create`: a new VM with empty disks. */
import { DISK_KINDS, parseDisks, parseHardware, parseVm } from '../arguments.js';
import { defineCommand, OWN_OPTIONS } from '../command.js';
import { hardwareOptions } from '../shared-options.js';
import { vmSummaryLines } from '../views.js';

export const createCommand = defineCommand({
  command: 'create <vm>',
  describe: 'Create a VM with empty disks',
  notes: `KIND is one of ${DISK_KINDS.join(', ')}.`,
  example: 'layerdisk create web --disk root=20G --disk data=1T --vcpus 2 --memory 4G --nic nat',
  repeatable: ['disk', 'nic'],
  options: (yargs) =>
    hardwareOptions(
      yargs
        .positional('vm', { type: 'string', demandOption: true, describe: 'Name of the new VM' })
        .option('disk', {
          group: OWN_OPTIONS,
          type: 'string',
          array: true,
          requiresArg: true,
          demandOption: true,
          describe: 'Disk: [NAME=]SIZE[,allocation=dynamic|static][,kind=KIND]',
        }),
    ),
  run: async (session, args) => {
    const vm = await session.call('create', {
      vm: parseVm(args.vm),
      disks: parseDisks(args.disk),
      ...parseHardware(args),
    });
    session.show(vm, {
      names: () => [vm.name],
      human: () => vmSummaryLines('created', vm),
    });
  },
});
