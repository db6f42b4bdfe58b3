/** `import`: a new VM on existing image files, or from a whole machine. */
import { resolve } from 'node:path';
import { DiskError } from '../../common/errors.js';
import { parseChoice, parseHardware, parseVm } from '../arguments.js';
import { defineCommand, OWN_OPTIONS } from '../command.js';
import { isFile } from '../image-target.js';
import { plain } from '../output.js';
import { hardwareOptions, IMAGE_FORMATS, parentOptions } from '../shared-options.js';
import { vmSummaryLines } from '../views.js';

export const importCommand = defineCommand({
  command: 'import <file..>',
  describe: 'Create a VM on existing images: FILE ... VM, or from a whole machine: FILE [VM]',
  notes:
    'The files are referenced where they are and never written; --copy makes the VM ' +
    'independent of them. ' +
    'Parents of an image must lie in its own folder, or in one named with --allow-folder. ' +
    'A machine file (.vbox, .vmx, .ovf, .ova, or a libvirt domain in .xml) becomes a VM with its ' +
    'hardware, disks and snapshots, under its own name when VM is left out.',
  example: 'layerdisk import base.qcow2 data.vmdk web --vcpus 2 --memory 4G',
  repeatable: ['file', 'nic', 'allow-folder'],
  options: (yargs) =>
    hardwareOptions(
      parentOptions(
        yargs
          .positional('file', {
            type: 'string',
            array: true,
            demandOption: true,
            describe: 'Image files, and last the name of the new VM',
          })
          .option('copy', {
            group: OWN_OPTIONS,
            type: 'boolean',
            describe: 'Copy the data into the store',
          })
          .option('image-snapshot', {
            group: OWN_OPTIONS,
            type: 'string',
            requiresArg: true,
            describe: 'A snapshot inside the images (qcow2) instead of their present state',
          }),
      ),
    ),
  run: async (session, args) => {
    const { files, name } = splitFiles(args.file);
    if (files.includes('')) {
      throw new DiskError('usage', 'import: a file name is empty', { hint: USAGE });
    }
    const snapshot = args['image-snapshot'];
    const folders = args['allow-folder']?.map((folder) => resolve(folder));
    const vm = await session.call('import', {
      files: files.map((file) => resolve(file)),
      ...(name === undefined ? {} : { vm: parseVm(name) }),
      ...(args.format === undefined
        ? {}
        : { format: parseChoice(args.format, '--format', IMAGE_FORMATS) }),
      ...(args.copy === true ? { copy: true } : {}),
      ...(folders === undefined ? {} : { allowFolders: folders }),
      ...(args.parent === undefined ? {} : { parent: resolve(args.parent) }),
      ...(snapshot === undefined ? {} : { imageSnapshot: snapshot }),
      ...parseHardware(args),
    });
    for (const warning of vm.warnings ?? []) {
      session.stderr.line(`layerdisk: warning: ${plain(warning)}`);
    }
    session.show(vm, {
      names: () => [vm.name],
      human: () => vmSummaryLines('imported', vm),
    });
  },
});

const USAGE = 'layerdisk import FILE ... VM';

/**
 * Whoever forgets the VM names a file last: one that would be left out, and be the name of a VM.
 */
const DISK_FILE = /\.(raw|img|vdi|vmdk|vhdx?|qcow2?|vbox|vmx|ovf|ova|xml)$/i;

/** A machine has a name of its own: one that stands alone is no VM's name. */
const MACHINE_FILE = /\.(vbox|vmx|ovf|ova|xml)$/i;

/** The files, and last the name of the VM. */
function splitFiles(words: readonly string[]): { files: string[]; name: string | undefined } {
  const [first = ''] = words;
  if (words.length === 1 && MACHINE_FILE.test(first)) return { files: [first], name: undefined };
  if (words.length < 2) {
    throw new DiskError('usage', 'import: needs at least one file and the name of the new VM', {
      hint: USAGE,
    });
  }
  const name = words.at(-1) ?? '';
  if (DISK_FILE.test(name) && isFile(name)) {
    throw new DiskError(
      'usage',
      `import: the last word names the new VM, but "${name}" names a file`,
      {
        hint: 'name the VM behind the files: layerdisk import FILE ... VM',
      },
    );
  }
  return { files: words.slice(0, -1), name };
}
