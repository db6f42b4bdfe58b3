/** `clone` and `reset-identity`: a new VM from another one. */
import { DiskError } from '../../common/errors.js';
import type { MacPolicy, Params, Result, Target } from '../../control/protocol.js';
import { parseChoice, parseHardware, parseName, parseTarget, parseVm } from '../arguments.js';
import { defineCommand, OWN_OPTIONS } from '../command.js';
import { onInterrupt } from '../interrupt.js';
import { checkResettable, identityLines, refuseUnlessRoot, resetVm } from '../reset-identity.js';
import type { Session } from '../session.js';
import { hardwareOptions } from '../shared-options.js';
import { vmSummaryLines } from '../views.js';

const MAC_POLICIES: readonly MacPolicy[] = ['new', 'keep', 'keep-nat'];
const SERIAL_POLICIES = ['new', 'keep'] as const;

export const cloneCommand = defineCommand({
  command: 'clone <target> <name>',
  describe: 'Make a new VM from a VM or from one of its snapshots',
  notes:
    "A linked clone shares the data of a snapshot and stores what it changes; of a VM's " +
    'current state a snapshot is taken first. A full clone copies all data and stands alone. ' +
    'Both have new MAC addresses and new serial numbers of disks unless told otherwise: a guest ' +
    'that finds its disks by /dev/disk/by-id wants --serials keep. Either starts cold, also ' +
    'where the snapshot has the memory of a guest.',
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
        })
        .option('serials', {
          group: OWN_OPTIONS,
          type: 'string',
          requiresArg: true,
          describe: `Serial numbers of the disks: ${SERIAL_POLICIES.join(', ')}`,
        })
        .option('reset-identity', {
          group: OWN_OPTIONS,
          type: 'boolean',
          describe: 'Clear machine-id, SSH host keys and the like inside (Linux; as root)',
        }),
    ),
  run: async (session, args) => {
    if ((args.linked === true) === (args.full === true)) {
      throw new DiskError('usage', 'clone: give exactly one of --linked and --full', {
        hint: '--linked shares the data and is instant, --full copies it',
      });
    }
    const reset = args['reset-identity'] === true;
    const source = parseTarget(args.target);
    if (reset) await refuseUnlessResettable(session, source);
    const request = {
      ...source,
      name: parseName(args.name, 'new name'),
      mode: args.linked === true ? 'linked' : 'full',
      ...(args.mac === undefined ? {} : { mac: parseChoice(args.mac, '--mac', MAC_POLICIES) }),
      ...(args.serials === undefined
        ? {}
        : { serials: parseChoice(args.serials, '--serials', SERIAL_POLICIES) }),
      ...parseHardware(args),
    } as const;
    const { identity, ...result } = reset
      ? await cloneAnew(session, request)
      : { ...(await session.call('clone', request)), identity: undefined };
    const { vm, tookSnapshot, coldStart, leftOut } = result;
    session.show(identity === undefined ? result : { ...result, identity }, {
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
        ...(identity === undefined
          ? [
              `note: inside it is still ${source.vm}: machine-id, SSH host keys, DHCP client; ` +
                `to clear them: layerdisk reset-identity ${vm.name}`,
            ]
          : identityLines(vm.name, identity)),
      ],
    });
  },
});

/** Refused before anything is copied, where that can be told. */
async function refuseUnlessResettable(session: Session, source: Target): Promise<void> {
  await refuseUnlessRoot();
  const { disks, snapshots } = await session.call('info', { vm: source.vm });
  const named = snapshots.find(({ name }) => name === source.snapshot);
  await checkResettable(source.vm, named?.disks ?? disks);
}

/** A clone with a cleared identity, or none. */
async function cloneAnew(session: Session, request: Params<'clone'>) {
  let interrupted = false;
  const release = onInterrupt(() => {
    interrupted = true;
  });
  try {
    const made = await session.call('clone', request);
    try {
      const identity = await resetVm(session, made.vm.name);
      if (interrupted) throw new DiskError('interrupted', 'clone: cancelled');
      return { ...made, identity };
    } catch (error) {
      throw await undone(session, request.vm, made, error);
    }
  } finally {
    release();
  }
}

/** Takes a clone away again; answers `cause` with what became of it. */
async function undone(
  session: Session,
  source: string,
  { vm, tookSnapshot }: Result<'clone'>,
  cause: unknown,
): Promise<unknown> {
  if (!(cause instanceof DiskError)) return cause;
  const { code, message, hint } = cause;
  const more = hint === undefined ? {} : { hint };
  try {
    await session.call('delete', { vm: vm.name });
    if (tookSnapshot !== undefined) {
      await session.call('snapshot.delete', { vm: source, snapshot: tookSnapshot });
    }
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return new DiskError(code, `${message}; the clone "${vm.name}" is left half cleared: ${why}`, {
      hint: `layerdisk delete ${vm.name}`,
      cause,
    });
  }
  return new DiskError(code, `${message}; the clone was removed again`, { ...more, cause });
}

export const resetIdentityCommand = defineCommand({
  command: 'reset-identity <vm>',
  describe: "Clear what makes a VM's Linux system itself, so that it becomes another one",
  notes:
    'Empties /etc/machine-id; removes SSH host keys, DHCP leases and client ids, random seeds, ' +
    'and persistent names of network cards. Needs root, and file systems on partitions or ' +
    'whole disks (ext2 to ext4, xfs, btrfs). The VM must not run. Links of the guest are never ' +
    'followed.',
  example: 'layerdisk reset-identity test',
  options: (yargs) =>
    yargs.positional('vm', { type: 'string', demandOption: true, describe: 'Name of the VM' }),
  run: async (session, args) => {
    const vm = parseVm(args.vm);
    await refuseUnlessRoot();
    const identity = await resetVm(session, vm);
    session.show(
      { vm, ...identity },
      { names: () => [vm], human: () => identityLines(vm, identity) },
    );
  },
});
