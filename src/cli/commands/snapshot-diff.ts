/** `snapshot diff`: which bytes of a VM's disks differ between a snapshot and another state. */
import { DiskError } from '../../common/errors.js';
import { parseName, parseSnapshot, parseTarget } from '../arguments.js';
import { defineCommand, OWN_OPTIONS } from '../command.js';
import { showDiff } from '../disk-diff.js';

export const diffCommand = defineCommand({
  command: 'diff <snapshot> [other]',
  describe: 'Show which bytes of the disks differ between a snapshot and another state',
  notes:
    'The other state is a snapshot of the same VM, or its present state (VM alone, or nothing); ' +
    'it does not matter which is the older one. Blocks of 4 KiB are compared by what they ' +
    'contain; "zeroes" is what they read as in the other state. Of the present state what has ' +
    'reached the disk counts, and what is written meanwhile may be in it or not. -q names the ' +
    'disks that differ.',
  example: 'layerdisk snapshot diff web@before-upgrade web@after-upgrade --json',
  options: (yargs) =>
    yargs
      .positional('snapshot', { type: 'string', demandOption: true, describe: 'VM@SNAPSHOT' })
      .positional('other', { type: 'string', describe: 'VM or VM@SNAPSHOT; default VM' })
      .option('disk', {
        group: OWN_OPTIONS,
        type: 'string',
        requiresArg: true,
        describe: 'Only this disk',
      }),
  run: async (session, args) => {
    const { vm, snapshot: from } = parseSnapshot(args.snapshot);
    const other = parseTarget(args.other ?? vm);
    if (other.vm !== vm) {
      throw new DiskError('usage', `"${vm}" and "${other.vm}" are two VMs`, {
        hint: `give a state of the same one: ${vm}@NAME, or ${vm} for the present state`,
      });
    }
    const to = other.snapshot;
    await showDiff(session, {
      vm,
      from,
      ...(to === undefined ? {} : { to }),
      ...(args.disk === undefined ? {} : { disk: parseName(args.disk, '--disk') }),
    });
  },
});
