/**
 * Files without a name, which are gone with whoever has them open, however that ends; and giving
 * one a name once it is whole.
 */
import { closeSync, constants, existsSync, openSync } from 'node:fs';
import { errnoName } from '../common/errors.js';
import { linkFollowing } from './libc.js';

/** `__O_TMPFILE`, which Node has no name for. */
const NAMELESS = 0x400000;

/**
 * What a file system says that has none (NFS, FAT), and a kernel that does not know the flag and
 * opens the folder.
 */
const HAS_NONE: ReadonlySet<string | undefined> = new Set(['ENOTSUP', 'EISDIR', 'EINVAL']);

/**
 * open(2) with O_TMPFILE, for reading and writing.
 * @returns undefined where there are no such files.
 */
export function openNameless(folder: string, mode: number): number | undefined {
  if (process.platform !== 'linux') return undefined;
  let fd: number;
  try {
    fd = openSync(folder, NAMELESS | constants.O_DIRECTORY | constants.O_RDWR, mode);
  } catch (error) {
    if (HAS_NONE.has(errnoName(error))) return undefined;
    throw error;
  }
  // Without /proc it could not be given a name.
  if (existsSync(descriptorPath(fd))) return fd;
  closeSync(fd);
  return undefined;
}

/** By this each thread of this process can open what `fd` has open. */
export function descriptorPath(fd: number): string {
  return `/proc/self/fd/${fd}`;
}

/** linkat(2). @throws SystemCallError EEXIST: nothing is replaced. */
export function nameDescriptor(fd: number, path: string): void {
  linkFollowing(descriptorPath(fd), path);
}
