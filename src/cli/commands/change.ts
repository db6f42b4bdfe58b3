/** `rename`, `delete` and `set`: changing a VM as a whole. */
import { DiskError } from '../../common/errors.js';
import { DISK_KINDS, parseDiskKind, parseHardware, parseName, parseVm } from '../arguments.js';
import { defineCommand, OWN_OPTIONS } from '../command.js';
import { hardwareOptions } from '../shared-options.js';
import { counted, vmSummaryLines } from '../views.js';

export const renameCommand = defineCommand({
  command: 'rename <vm> <name>',
  describe: 'Give a VM another name',
  example: 'layerdisk rename web www',
  options: (yargs) =>
    yargs
      .positional('vm', { type: 'string', demandOption: true, describe: 'Name of the VM' })
      .positional('name', { type: 'string', demandOption: true, describe: 'Its new name' }),
  run: async (session, args) => {
    const from = parseVm(args.vm, 'snapshot rename VM@SNAPSHOT NEW');
    const vm = await session.call('rename', { vm: from, name: parseName(args.name, 'new name') });
    session.show(vm, {
      names: () => [vm.name],
      human: () => [`renamed ${from} to ${vm.name}`],
    });
  },
});

export const deleteCommand = defineCommand({
  command: 'delete <vm>',
  describe: 'Delete a VM with its snapshots',
  notes:
    'What linked clones of its snapshots stand on is kept for them. Base images are never touched.',
  example: 'layerdisk delete web',
  options: (yargs) =>
    yargs.positional('vm', { type: 'string', demandOption: true, describe: 'Name of the VM' }),
  run: async (session, args) => {
    const vm = parseVm(args.vm, 'snapshot delete VM@SNAPSHOT');
    const result = await session.call('delete', { vm });
    const kept = counted(result.kept, 'delta');
    session.show(result, {
      names: () => [vm],
      human: () => [`deleted ${vm}${result.kept > 0 ? `; ${kept} kept for its clones` : ''}`],
    });
  },
});

export const setCommand = defineCommand({
  command: 'set <vm>',
  describe: 'Change the hardware of a VM; what is not named stays',
  notes:
    '--nic replaces all network cards. Snapshots keep the hardware they were taken with. A ' +
    'write-through disk is not part of snapshots and restores; an immutable one goes back, at ' +
    'each start of the guest, to what it contains when this is said; a read-only one is not ' +
    'written.',
  example: 'layerdisk set web --vcpus 4 --memory 8G --nic bridged,network=br0',
  repeatable: ['nic', 'disk-kind'],
  options: (yargs) =>
    hardwareOptions(
      yargs
        .positional('vm', { type: 'string', demandOption: true, describe: 'Name of the VM' })
        .option('disk-kind', {
          group: OWN_OPTIONS,
          type: 'string',
          array: true,
          requiresArg: true,
          describe: `[DISK=]KIND, KIND one of ${DISK_KINDS.join(', ')}`,
        }),
    ),
  run: async (session, args) => {
    const kinds = (args['disk-kind'] ?? []).map(parseDiskKind);
    const change = {
      ...parseHardware(args),
      ...(kinds.length === 0 ? {} : { diskKinds: kinds }),
    };
    if (Object.keys(change).length === 0) {
      throw new DiskError('usage', 'set: nothing to change', {
        hint: 'give --vcpus, --memory, --nic or --disk-kind',
      });
    }
    const vm = await session.call('set', { vm: parseVm(args.vm), ...change });
    session.show(vm, { names: () => [vm.name], human: () => vmSummaryLines('changed', vm) });
  },
});
