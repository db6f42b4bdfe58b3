/** `info`: everything about a VM, or about an image file without asking the daemon. */
import { DiskError } from '../../common/errors.js';
import { parseChoice, parseVm } from '../arguments.js';
import { defineCommand, OWN_OPTIONS } from '../command.js';
import type { ImageView } from '../image-info.js';
import { asNoFile, isFile } from '../image-target.js';
import type { Output } from '../output.js';
import { IMAGE_FORMATS } from '../shared-options.js';
import { fieldLines } from '../table.js';
import { exactSize, vmLines } from '../views.js';

function imageLines(output: Output, image: ImageView): string[] {
  const { subformat, parent } = image;
  return fieldLines(output, [
    ['file', image.path],
    [
      'format',
      subformat === '' || subformat === image.format
        ? image.format
        : `${image.format} (${subformat})`,
    ],
    ['virtual size', exactSize(image.virtualSize)],
    ['allocated', exactSize(image.allocatedSize)],
    ['unit', image.unitSize === 0 ? undefined : exactSize(image.unitSize)],
    ['sector size', String(image.logicalSectorSize)],
    ...image.files.slice(1).map((file) => ['also', file] as const),
    ...(parent?.names ?? []).map((name) => ['parent', name] as const),
    ['parent format', parent?.format],
    ...Object.entries(image.identity),
    ['creator', image.creator],
    ...image.notes.map((note) => ['note', note] as const),
  ]);
}

export const infoCommand = defineCommand({
  command: 'info <target>',
  describe: 'Show a VM, or an image file',
  notes:
    'What contains a slash, or is the name of a file in this folder, is an image file: it is ' +
    'read directly, ' +
    'without the daemon. Anything else is a VM.',
  example: 'layerdisk info web; layerdisk info ./base.qcow2',
  options: (yargs) =>
    yargs
      .positional('target', { type: 'string', demandOption: true, describe: 'VM or FILE' })
      .option('format', {
        group: OWN_OPTIONS,
        type: 'string',
        requiresArg: true,
        describe: `Format of the file: ${IMAGE_FORMATS.join(', ')}`,
      }),
  run: async (session, args) => {
    if (isFile(args.target)) {
      const format = parseChoice(args.format ?? 'auto', '--format', IMAGE_FORMATS);
      const { imageInfo } = await import('../image-info.js');
      const image = await imageInfo(args.target, format);
      session.show(image, {
        names: () => [image.path],
        human: (_, output) => imageLines(output, image),
      });
      return;
    }
    if (args.format !== undefined) {
      throw new DiskError('usage', `--format is for image files, and "${args.target}" is none`, {
        hint: 'an image file is written with a slash: ./NAME',
      });
    }
    const vm = await session
      .call('info', { vm: parseVm(args.target) })
      .catch((error: unknown) => Promise.reject(asNoFile(args.target, error)));
    session.show(vm, { names: () => [vm.name], human: (_, output) => vmLines(output, vm) });
  },
});
