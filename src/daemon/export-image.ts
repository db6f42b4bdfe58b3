/** Writes an open volume into an image file: the work of an export, on the background thread. */
import { statSync } from 'node:fs';
import { invariant } from '../common/assert.js';
import { DiskError } from '../common/errors.js';
import { SECTOR_SIZE } from '../common/units.js';
import type { CopyHooks } from '../engine/copy-volume.js';
import type { DiskImage } from '../engine/disk-image.js';
import type { ThreadContext } from '../engine/volume.js';
import { volumeSource } from '../engine/volume-source.js';
import { isFormatName, openImage, writingOf } from '../formats/registry.js';
import { writeImage } from '../formats/write-image.js';
import { OutputFiles } from '../storage/output-files.js';
import type { ExportJob, ExportOutcome, ParentSpec } from '../vm/exports.js';
import { ExportRoom } from './export-room.js';

/** @throws DiskError whatever `writeImage` does; nothing is left behind then. */
export async function exportImage(
  context: ThreadContext,
  job: ExportJob,
  hooks: CopyHooks,
): Promise<ExportOutcome> {
  const { path, format, subformat, overwrite, spared, parent } = job;
  const writing = isFormatName(format) ? writingOf(format) : undefined;
  invariant(writing !== undefined, `${format} was chosen for an export`);
  const source = volumeSource(context, job.volume, parent !== undefined);
  const { virtualSize } = source;
  const outputs = new OutputFiles(path, { overwrite, spared: new Set(spared) });
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
  const files = outputs.paths;
  const blocks = files.map((file) => statSync(file).blocks * SECTOR_SIZE);
  return { files, storedSize: blocks.reduce((sum, bytes) => sum + bytes, 0) };
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
  const { allowFolders = [] } = base;
  return openImage(top.path, top.format, { allowFolders });
}
