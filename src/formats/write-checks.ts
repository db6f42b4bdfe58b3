/** What every format refuses that writes differencing images: parents that it could not name. */
import { DiskError } from '../common/errors.js';
import type { DiskImage } from '../engine/disk-image.js';
import { unsupported } from './image-error.js';
import type { FormatName } from './image-format.js';
import type { ImageWriting, WriteOptions } from './image-writer.js';

/** What to do where no child can be written. */
export const NO_CHILD = 'export all of it: leave --differencing out';

/**
 * Checks that the subformat is one of the format's, with a parent or without, and that a parent is
 * of the same format.
 * @throws DiskError `usage` and `not-supported`.
 */
export function checkWriteOptions(
  path: string,
  format: FormatName,
  names: Pick<ImageWriting, 'subformats' | 'differencing'>,
  options: WriteOptions,
): void {
  const { subformat, parent } = options;
  const possible = parent === undefined ? names.subformats : names.differencing;
  if (!possible.includes(subformat)) {
    const which = parent === undefined ? 'without' : 'with';
    throw new DiskError(
      'usage',
      `${path}: a ${format} ${which} parent cannot be of subformat ${JSON.stringify(subformat)}`,
      { hint: `${which} parent it is ${possible.join(' or ')}` },
    );
  }
  if (parent !== undefined) checkParentFormat(path, format, parent.image);
}

/**
 * Children are of the format of their parents; only those in qcow2 stand on anything.
 * @throws DiskError `not-supported`.
 */
export function checkParentFormat(path: string, format: FormatName, parent: DiskImage): void {
  if (parent.format === format) return;
  throw unsupported(
    path,
    `the parent of a ${format} must be a ${format}, ${parent.path} is ${parent.format}`,
    parent.format === 'raw'
      ? 'a child of a raw disk can be qcow2: --format qcow2'
      : `write the child in its parent's format: --format ${parent.format}`,
  );
}
