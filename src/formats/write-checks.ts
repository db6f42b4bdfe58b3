/** What every format refuses that writes differencing images: parents that it could not name. */
import { DiskError } from '../common/errors.js';
import type { DiskImage } from '../engine/disk-image.js';
import { unsupported } from './image-error.js';
import type { FormatName } from './image-format.js';
import type { ImageWriting, WriteOptions } from './image-writer.js';

/**
 * Checks that the subformat is one of the format's, has a parent if it needs one, and none
 * otherwise, and that the parent is of the same format.
 * @throws DiskError `usage` and `not-supported`.
 */
export function checkWriteOptions(
  path: string,
  format: FormatName,
  names: Pick<ImageWriting, 'subformats' | 'differencing'>,
  options: WriteOptions,
): void {
  const { subformat, parent } = options;
  const { subformats, differencing } = names;
  if (!subformats.includes(subformat)) {
    throw new DiskError('usage', `${path}: ${format} has no subformat "${subformat}"`, {
      hint: `the subformats are ${subformats.join(', ')}`,
    });
  }
  if (parent === undefined && differencing.includes(subformat)) {
    throw new DiskError('usage', `${path}: a ${format} of subformat ${subformat} needs a parent`, {
      hint: `without one, the subformats are ${without(subformats, differencing).join(', ')}`,
    });
  }
  if (parent === undefined) return;
  if (!differencing.includes(subformat)) {
    throw new DiskError(
      'usage',
      `${path}: a ${format} of subformat ${subformat} cannot have a parent`,
      { hint: `with one, the subformat is ${differencing.join(' or ')}` },
    );
  }
  if (parent.image.format !== format) throw foreignParent(path, format, parent.image);
}

function foreignParent(path: string, format: FormatName, parent: DiskImage): DiskError {
  return unsupported(
    path,
    `the parent of a ${format} must be a ${format}, ${parent.path} is ${parent.format}`,
    `write the child in its parent's format: --format ${parent.format}`,
  );
}

function without(all: readonly string[], some: readonly string[]): string[] {
  return all.filter((name) => !some.includes(name));
}
