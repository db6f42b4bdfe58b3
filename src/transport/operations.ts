/**
 * What each file operation means on a disk of fixed size: the same for every channel.
 *
 * A disk file behaves like a block device where a regular file would grow or shrink: it is
 * never truncated or extended. Offsets and lengths are bytes. Errors are `DiskError`s with the
 * errno for the caller.
 */
import { DiskError } from '../common/errors.js';
import type { BlockDevice } from '../engine/block-device.js';
import type { NodeAttr } from './namespace.js';

/** Bits of a fallocate mode (uapi/linux/falloc.h); transports on other systems never see them. */
const KEEP_SIZE = 0x01;
const PUNCH_HOLE = 0x02;
const ZERO_RANGE = 0x10;

/** `whence` values of lseek that reach a file system. */
export const SEEK_DATA = 3;
export const SEEK_HOLE = 4;

function pastEnd(): DiskError {
  return new DiskError('usage', 'a disk has a fixed size: past its end', { errno: 'EFBIG' });
}

function checkWritable(device: BlockDevice): void {
  if (device.readOnly) {
    throw new DiskError('not-permitted', 'the disk is read-only', { errno: 'EROFS' });
  }
}

/** Reads up to the end of the disk; answers the bytes read, 0 at and past the end. */
export function readDevice(
  device: BlockDevice,
  target: Buffer,
  targetOffset: number,
  offset: number,
  length: number,
): number {
  const { size } = device;
  if (offset >= size || length === 0) return 0;
  const count = offset + length > size ? size - offset : length;
  device.read(target, targetOffset, offset, count);
  return count;
}

/**
 * Writes up to the end of the disk; answers the bytes written, fewer than asked for where the
 * end comes first.
 * @throws DiskError EFBIG from the end on, EROFS.
 */
export function writeDevice(
  device: BlockDevice,
  source: Buffer,
  sourceOffset: number,
  offset: number,
  length: number,
): number {
  checkWritable(device);
  if (length === 0) return 0;
  const { size } = device;
  if (offset >= size) throw pastEnd();
  const count = offset + length > size ? size - offset : length;
  device.write(source, sourceOffset, offset, count);
  return count;
}

/**
 * Punching a hole and zeroing a range both discard: the range reads as zeroes and its space
 * comes back. Plain allocation inside the disk succeeds and does nothing: a dynamic disk takes
 * space when it is written.
 * @throws DiskError EFBIG when the file would have to grow, EROFS, EOPNOTSUPP for other modes.
 */
export function fallocateDevice(
  device: BlockDevice,
  mode: number,
  offset: number,
  length: number,
): void {
  checkWritable(device);
  const { size } = device;
  const discards = mode === (PUNCH_HOLE | KEEP_SIZE) || (mode & ~KEEP_SIZE) === ZERO_RANGE;
  if (!discards && (mode & ~KEEP_SIZE) !== 0) {
    throw new DiskError('not-supported', `fallocate mode 0x${mode.toString(16)}`, {
      errno: 'EOPNOTSUPP',
    });
  }
  const mayReachPastEnd = discards && (mode & KEEP_SIZE) !== 0;
  if (!mayReachPastEnd && offset + length > size) throw pastEnd();
  if (!discards || offset >= size) return;
  device.discard(offset, Math.min(length, size - offset));
}

/**
 * lseek(SEEK_DATA | SEEK_HOLE): where the next data or hole begins.
 * @throws DiskError ENXIO at the end, and where no data follows.
 */
export function seekDevice(device: BlockDevice, offset: number, whence: number): number {
  if (whence !== SEEK_DATA && whence !== SEEK_HOLE) {
    throw new DiskError('usage', `lseek whence ${whence}`, { errno: 'EINVAL' });
  }
  const found =
    offset >= device.size
      ? -1
      : whence === SEEK_DATA
        ? device.nextData(offset)
        : device.nextHole(offset);
  if (found < 0) throw new DiskError('not-found', 'no more data', { errno: 'ENXIO' });
  return found;
}

/**
 * What a caller wants to change; absent: left alone. Times are accepted and forgotten, so they
 * are not here.
 */
export interface AttributeChange {
  readonly size?: number;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  /** The change belongs to an open with O_TRUNC, which a disk ignores as a block device does. */
  readonly truncatingOpen?: boolean;
}

/**
 * Checks a change of attributes, none of which is ever carried out: setting what already is so
 * succeeds.
 * @throws DiskError EPERM naming what cannot be changed.
 */
export function checkAttributeChange(attr: NodeAttr, change: AttributeChange): void {
  const { size, mode, uid, gid } = change;
  const ignored = change.truncatingOpen === true && size === 0;
  if (size !== undefined && size !== attr.size && !ignored) {
    throw new DiskError('not-permitted', `a disk of ${attr.size} bytes cannot become ${size}`, {
      hint: 'layerdisk disk resize VM NAME SIZE',
      errno: 'EPERM',
    });
  }
  const otherMode = mode !== undefined && (mode & 0o7777) !== attr.mode;
  const otherOwner =
    (uid !== undefined && uid !== attr.uid) || (gid !== undefined && gid !== attr.gid);
  if (otherMode || otherOwner) {
    throw new DiskError('not-permitted', 'mode and owner of a disk file are fixed', {
      errno: 'EPERM',
    });
  }
}
