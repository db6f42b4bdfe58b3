/** `import`: a new VM on existing image files. */
import { resolve } from 'node:path';
import { DiskError } from '../../common/errors.js';
import { parseChoice, parseHardware, parseVm } from '../arguments.js';
import { defineCommand, OWN_OPTIONS } from '../command.js';
import { hardwareOptions, IMAGE_FORMATS, parentOptions } from '../shared-options.js';
import { vmSummaryLines } from '../views.js';

export const importCommand = defineCommand({
  command: 'import <file..>',
  describe: 'Create a VM on existing images: FILE ... VM, each FILE becomes a disk',
  notes:
    'The files are referenced where they are and never written; --copy makes the VM ' +
    'independent of them. ' +
    'Parents of an image must lie in its own folder, or in one named with --allow-folder.',
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
          }),
      ),
    ),
  run: async (session, args) => {
    const name = args.file.at(-1);
    const files = args.file.slice(0, -1);
    if (name === undefined || files.length === 0) {
      throw new DiskError('usage', 'import: needs at least one file and the name of the new VM', {
        hint: 'layerdisk import FILE ... VM',
      });
    }
    if (files.includes('')) throw new DiskError('usage', 'import: a file name is empty');
    const folders = args['allow-folder']?.map((folder) => resolve(folder));
    const vm = await session.call('import', {
      files: files.map((file) => resolve(file)),
      vm: parseVm(name),
      ...(args.format === undefined
        ? {}
        : { format: parseChoice(args.format, '--format', IMAGE_FORMATS) }),
      ...(args.copy === true ? { copy: true } : {}),
      ...(folders === undefined ? {} : { allowFolders: folders }),
      ...(args.parent === undefined ? {} : { parent: resolve(args.parent) }),
      ...parseHardware(args),
    });
    session.show(vm, {
      names: () => [vm.name],
      human: () => vmSummaryLines('imported', vm),
    });
  },
});
