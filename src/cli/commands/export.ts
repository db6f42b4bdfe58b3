/** `export`: a disk as an image file. */
import { extname, resolve } from 'node:path';
import type { Argv } from 'yargs';
import { DiskError } from '../../common/errors.js';
import { formatSize } from '../../common/units.js';
import type { FormatName } from '../../control/protocol.js';
import { ALLOCATIONS, parseChoice, parseTarget } from '../arguments.js';
import { defineCommand, OWN_OPTIONS } from '../command.js';
import { plain } from '../output.js';
import type { Session } from '../session.js';
import { targetOptions, WRITTEN_FORMATS } from '../shared-options.js';
import { exportMachine, machineOption } from './export-machine.js';

const EXTENSIONS: Readonly<Record<string, FormatName>> = {
  '.raw': 'raw',
  '.img': 'raw',
  '.vdi': 'vdi',
  '.vmdk': 'vmdk',
  '.vhd': 'vhd',
  '.vhdx': 'vhdx',
  '.qcow2': 'qcow2',
};

export const exportCommand = defineCommand({
  command: 'export <target> [file]',
  describe: 'Write a disk into an image file, or machine files that point at the disks',
  notes:
    'The file holds one instant; the VM may go on writing. Zeroes take no space unless ' +
    '--allocation static says so. With --differencing the file holds only what was changed, as a ' +
    'child of the image that the VM was imported from, which must stay where it is.\n\n' +
    '--libvirt-xml, --vbox, --vmx and --vmdk-descriptor copy nothing: with what they write, ' +
    'other hypervisors run on the disks themselves. One at a time may use a disk. Take ' +
    'snapshots here, not there; never resize or move a disk there. After a rename, or with ' +
    'another mount point, write the files again.',
  example: 'layerdisk export web@before-upgrade web.qcow2 --subformat compressed',
  options: (yargs) =>
    machineOptions(targetOptions(yargs))
      .positional('file', { type: 'string', describe: 'The image file to make' })
      .option('format', {
        group: OWN_OPTIONS,
        type: 'string',
        requiresArg: true,
        describe: `Format: ${WRITTEN_FORMATS.join(', ')}; default: what the file's name ends in`,
      })
      .option('subformat', {
        group: OWN_OPTIONS,
        type: 'string',
        requiresArg: true,
        describe: 'Variant of the format, for example compressed, streamOptimized',
      })
      .option('allocation', {
        group: OWN_OPTIONS,
        type: 'string',
        requiresArg: true,
        describe: 'dynamic: space as it is needed; static: all at once',
      })
      .option('differencing', {
        group: OWN_OPTIONS,
        type: 'boolean',
        describe: 'Only what was changed, as a child of the imported image',
      })
      .option('ova', {
        group: OWN_OPTIONS,
        type: 'boolean',
        describe: 'The whole VM: all disks at one instant and the hardware, as an OVA',
      })
      .option('force', {
        group: OWN_OPTIONS,
        type: 'boolean',
        describe: 'Replace a file that is there already',
      }),
  run: async (session, args) => {
    const { allocation, subformat, file } = args;
    const option = machineOption(args);
    if (option !== undefined) {
      await exportMachine(session, args, option);
      return;
    }
    if (file === undefined) {
      throw new DiskError('usage', 'export: say which file to make', {
        hint: `layerdisk export ${args.target} FILE.qcow2`,
      });
    }
    if (args.ova === true || /\.ova$/i.test(file)) {
      await exportOva(session, { ...args, file });
      return;
    }
    const result = await session.call('export', {
      ...parseTarget(args.target, args.disk),
      path: resolve(file),
      format: formatOf(file, args.format),
      ...(subformat === undefined ? {} : { subformat }),
      ...(allocation === undefined
        ? {}
        : { allocation: parseChoice(allocation, '--allocation', ALLOCATIONS) }),
      ...(args.differencing === true ? { differencing: true } : {}),
      ...(args.force === true ? { force: true } : {}),
    });
    const { path, format, storedSize } = result;
    session.show(result, {
      names: () => [path],
      human: () => [
        `exported ${args.target} to ${plain(path)}: ` +
          `${format} (${result.subformat}), ${formatSize(storedSize)} on the host`,
      ],
    });
  },
});

function machineOptions<T>(yargs: Argv<T>) {
  const option = (describe: string) =>
    ({ group: OWN_OPTIONS, type: 'string', requiresArg: true, describe }) as const;
  return yargs
    .option('libvirt-xml', option('Write a domain of libvirt; - writes it to standard output'))
    .option('vbox', option('Write a machine of VirtualBox, with a VMDK descriptor for each disk'))
    .option('vmx', option('Write a machine of VMware, with a VMDK descriptor for each disk'))
    .option('vmdk-descriptor', option('Write a VMDK that points at one disk'));
}

interface OvaArguments {
  readonly target: string;
  readonly file: string;
  readonly force?: boolean | undefined;
}

/** What is said of one disk's image does not go with a whole VM. */
const OF_ONE_DISK = ['disk', 'format', 'subformat', 'allocation', 'differencing'];

async function exportOva(session: Session, args: OvaArguments): Promise<void> {
  const given = OF_ONE_DISK.find((name) => Object.hasOwn(args, name) && Reflect.get(args, name));
  if (given !== undefined) {
    throw new DiskError('usage', `export: --${given} does not go with an OVA`, {
      hint: 'an OVA holds all disks as streamOptimized VMDKs; to export one disk name a .vmdk file',
    });
  }
  const { vm, snapshot } = parseTarget(args.target, undefined);
  const result = await session.call('export.ova', {
    vm,
    ...(snapshot === undefined ? {} : { snapshot }),
    path: resolve(args.file),
    ...(args.force === true ? { force: true } : {}),
  });
  session.show(result, {
    names: () => [result.path],
    human: () => [
      `exported ${args.target} to ${plain(result.path)}: ` +
        `OVA, ${formatSize(result.storedSize)} on the host`,
    ],
  });
}

function formatOf(file: string, format: string | undefined): FormatName {
  if (format !== undefined) return parseChoice(format, '--format', WRITTEN_FORMATS);
  const known = EXTENSIONS[extname(file).toLowerCase()];
  if (known !== undefined) return known;
  throw new DiskError('usage', `export: the name "${file}" does not tell the format`, {
    hint: `say which one: --format ${WRITTEN_FORMATS.join('|')}`,
  });
}
