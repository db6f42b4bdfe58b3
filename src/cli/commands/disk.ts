/** `disk add|remove|resize`: the disks of a VM that is there already. */
import { formatSize } from '../../common/units.js';
import type { VmView } from '../../control/protocol.js';
import { parseDisk, parseName, parseSizeOption, parseVm } from '../arguments.js';
import { defineCommand, defineGroup, OWN_OPTIONS } from '../command.js';

function linesOf(verb: string, vm: VmView, name: string): string[] {
  const disk = vm.disks.find((each) => each.name === name);
  const shown = disk === undefined ? '' : `: ${formatSize(disk.size)}  ${disk.path}`;
  return [`${verb} disk ${name} of ${vm.name}${shown}`];
}

const addCommand = defineCommand({
  command: 'add <vm> <disk>',
  describe: 'Give a VM one more disk, empty',
  notes: 'A guest that runs sees it after its next start.',
  example: 'layerdisk disk add web data=200G',
  options: (yargs) =>
    yargs
      .positional('vm', { type: 'string', demandOption: true, describe: 'Name of the VM' })
      .positional('disk', {
        type: 'string',
        demandOption: true,
        describe: '[NAME=]SIZE[,allocation=dynamic|static][,kind=KIND]',
      }),
  run: async (session, args) => {
    const vm = await session.call('disk.add', { vm: parseVm(args.vm), disk: parseDisk(args.disk) });
    const { name } = vm.disks.at(-1)!;
    session.show(vm, { names: () => [name], human: () => linesOf('added', vm, name) });
  },
});

const removeCommand = defineCommand({
  command: 'remove <vm> <name>',
  describe: 'Take a disk away from a VM; snapshots keep theirs',
  notes: 'What is in it now is lost unless a snapshot has it. Nobody may use the disks of the VM.',
  example: 'layerdisk disk remove web data',
  options: (yargs) =>
    yargs
      .positional('vm', { type: 'string', demandOption: true, describe: 'Name of the VM' })
      .positional('name', { type: 'string', demandOption: true, describe: 'Name of the disk' }),
  run: async (session, args) => {
    const disk = parseName(args.name, 'disk');
    const vm = await session.call('disk.remove', { vm: parseVm(args.vm), disk });
    session.show(vm, { names: () => [disk], human: () => linesOf('removed', vm, disk) });
  },
});

const resizeCommand = defineCommand({
  command: 'resize <vm> <name> <size>',
  describe: 'Give a disk another size',
  notes:
    'What it gains reads as zero. Snapshots keep their size. Nobody may use the disks of the VM. ' +
    'Partitions and file systems on it are made larger afterwards, and smaller before.',
  example: 'layerdisk disk resize web disk0 40G',
  options: (yargs) =>
    yargs
      .positional('vm', { type: 'string', demandOption: true, describe: 'Name of the VM' })
      .positional('name', { type: 'string', demandOption: true, describe: 'Name of the disk' })
      .positional('size', { type: 'string', demandOption: true, describe: 'Its new size' })
      .option('shrink', {
        group: OWN_OPTIONS,
        type: 'boolean',
        describe: 'Lose what lies past the new end',
      }),
  run: async (session, { vm: named, name, size, shrink }) => {
    const disk = parseName(name, 'disk');
    const vm = await session.call('disk.resize', {
      ...{ vm: parseVm(named), disk, size: parseSizeOption(size, 'size') },
      ...(shrink === true ? { shrink } : {}),
    });
    session.show(vm, { names: () => [disk], human: () => linesOf('resized', vm, disk) });
  },
});

export const diskGroup = defineGroup('disk', 'Add, remove and resize disks of a VM', [
  addCommand,
  removeCommand,
  resizeCommand,
]);
