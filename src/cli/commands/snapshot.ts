/** `snapshot take|list|restore|delete|rename|diff`. */
import { formatSize } from '../../common/units.js';
import { parseName, parseSnapshot, parseVm } from '../arguments.js';
import { defineCommand, defineGroup, type GlobalArgv, OWN_OPTIONS } from '../command.js';
import { chooseFate } from '../restore-choice.js';
import { snapshotTable } from '../views.js';
import { diffCommand } from './snapshot-diff.js';

const snapshotPositional = (yargs: GlobalArgv) =>
  yargs.positional('snapshot', { type: 'string', demandOption: true, describe: 'VM@SNAPSHOT' });

const takeCommand = defineCommand({
  command: 'take <snapshot>',
  describe: 'Take a snapshot of all disks and the configuration of a VM, at one instant',
  notes:
    'With --memory the guest is paused while its memory is written into the store. After a ' +
    'restore of such a snapshot, run goes on where the guest was.',
  example: 'layerdisk snapshot take web@before-upgrade -m "Debian 12, all updates"',
  options: (yargs) =>
    snapshotPositional(yargs)
      .option('message', {
        group: OWN_OPTIONS,
        alias: 'm',
        type: 'string',
        requiresArg: true,
        describe: 'What to remember about it',
      })
      .option('memory', {
        group: OWN_OPTIONS,
        type: 'boolean',
        describe: 'Save the memory and the devices of the running guest, too',
      }),
  run: async (session, args) => {
    const { vm, snapshot } = parseSnapshot(args.snapshot);
    const { message, memory } = args;
    const taken = await session.call('snapshot.take', {
      vm,
      snapshot,
      ...(message === undefined ? {} : { message }),
      ...(memory === true ? { memory } : {}),
    });
    const size =
      taken.memoryState === undefined ? '' : `, ${formatSize(taken.memoryState)} of memory`;
    session.show(taken, {
      names: () => [`${vm}@${taken.name}`],
      human: () => [`took ${vm}@${taken.name} (${taken.consistency}${size})`],
    });
  },
});

const listCommand = defineCommand({
  command: 'list <vm>',
  describe: 'List the snapshots of a VM; * is the one that the current state stands on',
  example: 'layerdisk snapshot list web',
  options: (yargs) =>
    yargs.positional('vm', { type: 'string', demandOption: true, describe: 'Name of the VM' }),
  run: async (session, args) => {
    const vm = parseVm(args.vm);
    const snapshots = await session.call('snapshot.list', { vm });
    session.show(snapshots, {
      names: () => snapshots.map((snapshot) => `${vm}@${snapshot.name}`),
      human: (_, output) =>
        snapshots.length === 0 ? [`${vm} has no snapshots`] : snapshotTable(output, snapshots),
    });
  },
});

const restoreCommand = defineCommand({
  // The positional is checked by hand: in `restore --save-current web@x` yargs takes it for the
  // option's value.
  command: 'restore [snapshot]',
  describe: 'Put a VM back to a snapshot: its disks and its hardware',
  notes:
    'The current state is lost unless it is saved. On a terminal you are asked; a script must ' +
    'say which: ' +
    '--save-current [NAME] takes a snapshot of it first, --discard throws it away. Where the ' +
    'snapshot has a memory, the next run goes on with it.',
  example: 'layerdisk snapshot restore web@before-upgrade --save-current after-upgrade',
  repeatable: ['save-current'],
  options: (yargs) =>
    yargs
      .positional('snapshot', { type: 'string', describe: 'VM@SNAPSHOT' })
      .option('save-current', {
        group: OWN_OPTIONS,
        type: 'string',
        describe: 'Save the current state as [NAME] first',
      })
      .option('discard', {
        group: OWN_OPTIONS,
        type: 'boolean',
        describe: 'Throw the current state away',
      }),
  run: async (session, args) => {
    const { target, fate } = await chooseFate(session, args);
    const result = await session.call('snapshot.restore', { ...target, ...fate });
    const { restored, saved } = result;
    session.show(result, {
      names: () => [`${target.vm}@${restored.name}`],
      human: () => [
        ...(saved === undefined ? [] : [`saved the current state as ${target.vm}@${saved.name}`]),
        `restored ${target.vm} to ${restored.name}`,
        ...(restored.memoryState === undefined
          ? []
          : [`its guest goes on where it was: layerdisk run ${target.vm}`]),
      ],
    });
  },
});

const deleteCommand = defineCommand({
  command: 'delete <snapshot>',
  describe: 'Delete a snapshot; what stands on it reads the same as before',
  example: 'layerdisk snapshot delete web@before-upgrade',
  options: snapshotPositional,
  run: async (session, args) => {
    const target = parseSnapshot(args.snapshot);
    const result = await session.call('snapshot.delete', target);
    const name = `${target.vm}@${target.snapshot}`;
    session.show(result, { names: () => [name], human: () => [`deleted ${name}`] });
  },
});

const renameCommand = defineCommand({
  command: 'rename <snapshot> <name>',
  describe: 'Give a snapshot another name',
  example: 'layerdisk snapshot rename web@before-upgrade clean',
  options: (yargs) =>
    snapshotPositional(yargs).positional('name', {
      type: 'string',
      demandOption: true,
      describe: 'Its new name',
    }),
  run: async (session, args) => {
    const target = parseSnapshot(args.snapshot);
    const name = parseName(args.name, 'new name');
    const renamed = await session.call('snapshot.rename', { ...target, name });
    session.show(renamed, {
      names: () => [`${target.vm}@${renamed.name}`],
      human: () => [`renamed ${target.vm}@${target.snapshot} to ${target.vm}@${renamed.name}`],
    });
  },
});

export const snapshotGroup = defineGroup(
  'snapshot',
  'Take, list, restore, delete and compare snapshots',
  [takeCommand, listCommand, restoreCommand, deleteCommand, renameCommand, diffCommand],
);
