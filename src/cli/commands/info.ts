/** `info`: everything about a VM, or about an image file without asking the daemon. */
import { parseVm } from '../arguments.js';
import { defineCommand } from '../command.js';
import type { ChainLink, ImageView, SnapshotView } from '../image-info.js';
import { asNoFile, imageOpening, isFile, OPENING_OPTIONS, refuseGiven } from '../image-target.js';
import type { Output } from '../output.js';
import { parentOptions } from '../shared-options.js';
import { fieldLines } from '../table.js';
import { exactSize, vmLines } from '../views.js';

/** An image may hold thousands. */
const MOST_SNAPSHOTS = 100;

function imageLines(output: Output, image: ImageView): string[] {
  const { subformat, parent, internalSnapshots: snapshots = [] } = image;
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
    ['file size', exactSize(image.fileSize)],
    ['on the host', exactSize(image.storedSize)],
    ['unit', image.unitSize === 0 ? undefined : exactSize(image.unitSize)],
    ['sector size', String(image.logicalSectorSize)],
    ...image.files.slice(1).map((file) => ['also', file] as const),
    ...(parent?.names ?? []).map((name) => ['parent', name] as const),
    ['parent format', parent?.format],
    ...(image.chain?.slice(1) ?? []).map((each) => ['stands on', linkText(each)] as const),
    ...Object.entries(image.identity),
    ['creator', image.creator],
    ...snapshots.slice(0, MOST_SNAPSHOTS).map((each) => ['snapshot', snapshotText(each)] as const),
    [
      'snapshots',
      snapshots.length > MOST_SNAPSHOTS ? `${snapshots.length}, see --json` : undefined,
    ],
    ...image.notes.map((note) => ['note', note] as const),
    ['health', image.health],
    ['problem', image.problem?.message],
    ['hint', image.problem?.hint],
  ]);
}

function snapshotText({ id, name, created, virtualSize, hasMachineState }: SnapshotView): string {
  const state = hasMachineState ? ', with the memory of its machine' : '';
  return `${JSON.stringify(name)} (id ${id}), ${created}, ${exactSize(virtualSize)}${state}`;
}

function linkText({ path, format, virtualSize }: ChainLink): string {
  return `${path}, ${format}, ${exactSize(virtualSize)}`;
}

export const infoCommand = defineCommand({
  command: 'info <target>',
  describe: 'Show a VM, or an image file',
  notes:
    'What contains a slash, or is the name of a file in this folder, is an image file: it is ' +
    'read directly, ' +
    'without the daemon, and so is what it stands on. Anything else is a VM.',
  example: 'layerdisk info web; layerdisk info ./base.qcow2',
  repeatable: ['allow-folder'],
  options: (yargs) =>
    parentOptions(
      yargs.positional('target', { type: 'string', demandOption: true, describe: 'VM or FILE' }),
    ),
  run: async (session, args) => {
    if (isFile(args.target)) {
      const { imageInfo } = await import('../image-info.js');
      const image = await imageInfo(args.target, imageOpening(args));
      session.show(image, {
        names: () => [image.path],
        human: (_, output) => imageLines(output, image),
      });
      return;
    }
    refuseGiven(args, OPENING_OPTIONS, 'is for image files', args.target);
    const vm = await session
      .call('info', { vm: parseVm(args.target) })
      .catch((error: unknown) => Promise.reject(asNoFile(args.target, error)));
    session.show(vm, { names: () => [vm.name], human: (_, output) => vmLines(output, vm) });
  },
});
