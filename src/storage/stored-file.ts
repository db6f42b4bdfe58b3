/**
 * Opening files of the store that are there already.
 *
 * Somebody may have put something else in the place of one. open(2) of a FIFO waits for the other
 * end, perhaps for ever, and a device has no end: a thread that serves others must meet neither.
 */
import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import { DiskError, errnoName } from '../common/errors.js';
import { hostError } from './exact-io.js';

const ACCESS = { r: constants.O_RDONLY, 'r+': constants.O_RDWR } as const;
/** What open(2) itself says of folders and sockets. */
const OF_ODD_FILES = ['EISDIR', 'ENXIO'];

/**
 * Opens a regular file. Never waits.
 * @throws the host's error; DiskError `damaged` for what is no regular file.
 */
export function openStored(path: string, access: keyof typeof ACCESS): number {
  let fd: number;
  try {
    fd = openSync(path, ACCESS[access] | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch (error) {
    throw OF_ODD_FILES.includes(errnoName(error) ?? '') ? notRegular(path) : error;
  }
  let isFile = false;
  try {
    isFile = fstatSync(fd).isFile();
  } finally {
    if (!isFile) closeSync(fd);
  }
  if (isFile) return fd;
  throw notRegular(path);
}

/**
 * The same for who cannot go on without it.
 * @throws DiskError that names the file, `damaged` where it is gone.
 */
export function requireStored(path: string, access: keyof typeof ACCESS): number {
  try {
    return openStored(path, access);
  } catch (error) {
    if (errnoName(error) !== 'ENOENT') throw hostError(`cannot open ${path}`, error);
    throw new DiskError('damaged', `${path}: this file of the store is missing`, {
      errno: 'EIO',
      hint: 'restore it from a backup of the store',
    });
  }
}

function notRegular(path: string): DiskError {
  return new DiskError('damaged', `${path} is not a regular file`, {
    errno: 'EIO',
    hint: 'move away what is in its place, and restore the file from a backup of the store',
  });
}
