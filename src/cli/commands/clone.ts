/** `clone`: a new VM from another one. */
import { DiskError } from '../../common/errors.js';
import type { MacPolicy } from '../../control/protocol.js';
import { parseChoice, parseHardware, parseName, parseTarget } from '../arguments.js';
import { defineCommand, OWN_OPTIONS } from '../command.js';
import { hardwareOptions } from '../shared-options.js';
import { vmSummaryLines } from '../views.js';

const MAC_POLICIES: readonly MacPolicy[] = ['new', 'keep', 'keep-nat'];

export const cloneCommand = defineCommand({
  command: 'clone <target> <name>',
  describe: 'Make a new VM from a VM or from one of its snapshots',
  notes:
    "A linked clone shares the data of a snapshot and stores what it changes; of a VM's " +
    'current state a snapshot is taken first. A full clone copies all data and stands alone. ' +
    'Either starts cold, also where the snapshot has the memory of a guest.',
  example: 'layerdisk clone web@before-upgrade test --linked --memory 2G',
  repeatable: ['nic'],
  options: (yargs) =>
    hardwareOptions(
      yargs
        .positional('target', { type: 'string', demandOption: true, describe: 'VM or VM@SNAPSHOT' })
        .positional('name', { type: 'string', demandOption: true, describe: 'Name of the new VM' })
        .option('linked', { group: OWN_OPTIONS, type: 'boolean', describe: 'Share the data' })
        .option('full', { group: OWN_OPTIONS, type: 'boolean', describe: 'Copy the data' })
        .option('mac', {
          group: OWN_OPTIONS,
          type: 'string',
          requiresArg: true,
          describe: `MAC addresses: ${MAC_POLICIES.join(', ')}`,
        }),
    ),
  run: async (session, args) => {
    if ((args.linked === true) === (args.full === true)) {
      throw new DiskError('usage', 'clone: give exactly one of --linked and --full', {
        hint: '--linked shares the data and is instant, --full copies it',
      });
    }
    const { vm, tookSnapshot, coldStart, leftOut, ...rest } = await session.call('clone', {
      ...parseTarget(args.target),
      name: parseName(args.name, 'new name'),
      mode: args.linked === true ? 'linked' : 'full',
      ...(args.mac === undefined ? {} : { mac: parseChoice(args.mac, '--mac', MAC_POLICIES) }),
      ...parseHardware(args),
    });
    const result = {
      ...rest,
      vm,
      ...(tookSnapshot === undefined ? {} : { tookSnapshot }),
      ...(coldStart === undefined ? {} : { coldStart }),
      ...(leftOut === undefined ? {} : { leftOut }),
    };
    session.show(result, {
      names: () => [vm.name],
      human: () => [
        ...(tookSnapshot === undefined ? [] : [`took snapshot ${args.target}@${tookSnapshot}`]),
        ...vmSummaryLines('cloned', vm),
        ...(leftOut ?? []).map((disk) => `note: without disk ${disk}: it is write-through`),
        ...(coldStart === true
          ? [`note: ${vm.name} starts cold: the memory of ${args.target} is not cloned`]
          : []),
        ...(vm.sharedMacs ?? []).map(
          ({ mac, vms }) => `warning: ${vms.join(', ')} has the MAC address ${mac}, too`,
        ),
      ],
    });
  },
});
