/** Writes an open volume into an image file: the work of an export, on the background thread. */
import { statSync } from 'node:fs';
import { invariant } from '../common/assert.js';
import { DiskError } from '../common/errors.js';
import { SECTOR_SIZE } from '../common/units.js';
import type { DiskImage } from '../engine/disk-image.js';
import type { ThreadContext } from '../engine/volume/volume.js';
import { volumeSource } from '../engine/volume/volume-source.js';
import { isFormatName, openImage, writingOf } from '../formats/registry.js';
import { checkNotCancelled, type WriteHooks, writeImage } from '../formats/write-image.js';
import { OutputFiles } from '../storage/output-files.js';
import { OutputMember } from '../storage/output-member.js';
import type { ExportJob, ExportOutcome, ParentSpec } from '../vm/exchange/exports.js';
import { ExportRoom } from './export-room.js';

/** @throws DiskError whatever `writeImage` does; nothing is left behind then. */
export async function exportImage(
  context: ThreadContext,
  job: ExportJob,
  hooks: WriteHooks,
): Promise<ExportOutcome> {
  const { path, overwrite, spared, within } = job;
  if (within !== undefined) {
    return exportMember(context, job, new OutputMember(path, within), hooks);
  }
  const outputs = new OutputFiles(path, { overwrite, spared: new Set(spared) });
  await writeInto(context, job, outputs, hooks);
  const files = outputs.paths;
  const blocks = files.map((file) => statSync(file).blocks * SECTOR_SIZE);
  return { files, storedSize: blocks.reduce((sum, bytes) => sum + bytes, 0) };
}

async function exportMember(
  context: ThreadContext,
  job: ExportJob,
  output: OutputMember,
  hooks: WriteHooks,
): Promise<ExportOutcome> {
  try {
    await writeInto(context, job, output, hooks);
    const member = await output.measure(async () => {
      checkNotCancelled(hooks);
      await hooks.rest?.();
    });
    return { files: [], storedSize: member.size, member };
  } finally {
    output.close();
  }
}

async function writeInto(
  context: ThreadContext,
  job: ExportJob,
  outputs: OutputFiles,
  hooks: WriteHooks,
): Promise<void> {
  const { format, subformat, parent } = job;
  const writing = isFormatName(format) ? writingOf(format) : undefined;
  invariant(writing !== undefined, `${format} was chosen for an export`);
  const source = volumeSource(context, job.volume, parent !== undefined);
  const { virtualSize } = source;
  const image = parent === undefined ? undefined : openParent(parent);
  try {
    const link = image && parent && { image, name: parent.name };
    const options = { virtualSize, subformat, ...(link === undefined ? {} : { parent: link }) };
    const room = new ExportRoom(context.allowance, job);
    room.require(virtualSize);
    await writeImage(source, outputs, writing, options, room.watch(hooks));
  } finally {
    image?.close();
  }
}

/** The image that the child is made for, without its own parents. */
function openParent({ base }: ParentSpec): DiskImage {
  const [top] = base.images;
  if (top === undefined) throw new DiskError('damaged', `base ${base.id} consists of no image`);
  if (top.window !== undefined) {
    throw new DiskError('not-supported', `${top.path} is an archive: no child can stand on it`, {
      hint: 'export all of the disk: leave --differencing out',
    });
  }
  if (top.snapshot !== undefined) {
    throw new DiskError(
      'not-supported',
      `the disk stands on a snapshot inside ${top.path}: a child would stand on its present state`,
      { hint: 'export all of the disk: leave --differencing out' },
    );
  }
  const { allowFolders = [] } = base;
  return openImage(top.path, top.format, { allowFolders });
}
