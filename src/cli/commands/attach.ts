/** `attach` and `detach`: a disk as a loop device. */
import { DiskError } from '../../common/errors.js';
import { parseTarget } from '../arguments.js';
import { defineCommand, OWN_OPTIONS } from '../command.js';
import { targetOptions } from '../shared-options.js';

export const attachCommand = defineCommand({
  command: 'attach <target>',
  describe: 'Make a disk a loop device and print its name',
  notes: 'Snapshots are always attached read-only.',
  example: 'layerdisk attach web@before-upgrade --read-only',
  options: (yargs) =>
    targetOptions(yargs)
      .option('read-only', { group: OWN_OPTIONS, type: 'boolean', describe: 'Refuse writes' })
      .option('direct-io', {
        group: OWN_OPTIONS,
        type: 'boolean',
        describe: 'Bypass the page cache of the raw file',
      }),
  run: async (session, args) => {
    const result = await session.call('attach', {
      ...parseTarget(args.target, args.disk),
      ...(args['read-only'] === true ? { readOnly: true } : {}),
      ...(args['direct-io'] === true ? { directIo: true } : {}),
    });
    session.show(result, { names: () => [result.device], human: () => [result.device] });
  },
});

export const detachCommand = defineCommand({
  command: 'detach <target>',
  describe: 'Detach a loop device, named by VM[@SNAP] or by the device',
  notes: 'Returns when everything written is durable and the device is gone.',
  example: 'layerdisk detach /dev/loop0',
  options: (yargs) =>
    targetOptions(yargs).positional('target', {
      type: 'string',
      demandOption: true,
      describe: 'VM, VM@SNAPSHOT, or a loop device',
    }),
  run: async (session, args) => {
    const { target, disk } = args;
    if (target.startsWith('/') && disk !== undefined) {
      throw new DiskError('usage', `--disk is for VMs, and "${target}" is none`, {
        hint: 'name the device alone, or the VM and its disk: layerdisk detach VM --disk NAME',
      });
    }
    const params = target.startsWith('/')
      ? { device: target }
      : { target: parseTarget(target, disk) };
    const result = await session.call('detach', params);
    session.show(result, {
      names: () => result.devices,
      human: () => result.devices.map((device) => `detached ${device}`),
    });
  },
});
