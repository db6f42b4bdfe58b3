/**
 * Names the page cache that un-synced writes of a folder live in: it changes when they may have
 * been lost.
 *
 * That is at a reboot (boot id), and when the file system was unmounted and mounted again (the
 * inode number of its sysfs folder, which the kernel makes anew for every mount of ext4, xfs and
 * btrfs). It stays the same over the death of a process, and in another mount namespace. See
 * native-notes/durability.md.
 */

import { createHash } from 'node:crypto';
import { closeSync, openSync, readFileSync, readlinkSync, statfsSync, statSync } from 'node:fs';
import { basename } from 'node:path';
import { uuidFromBytes } from '../common/uuid.js';
import { ioctlBuffer } from './libc.js';

/** @returns 32 hexadecimal digits. */
export function cacheEpoch(folder: string): string {
  const parts = [readText('/proc/sys/kernel/random/boot_id'), superblockInstance(folder)];
  return createHash('sha256').update(parts.join('\n')).digest('hex').slice(0, 32);
}

/**
 * File systems that have a folder in sysfs while they are mounted, by the magic number of
 * statfs(2): the folder's kind. What the table of mounts says of names and types is no help: it
 * shows a mapped device as it was named by who mounted it, and ext3 as such, though the driver is
 * that of ext4.
 */
const KINDS: ReadonlyMap<number, string> = new Map([
  [0xef53, 'ext4'],
  [0x58465342, 'xfs'],
  [0x9123683e, 'btrfs'],
]);

/** Something that differs between two mounts of one file system; empty where nothing shows it. */
function superblockInstance(folder: string): string {
  const kind = KINDS.get(statfsSync(folder).type);
  if (kind === undefined) return '';
  const name = kind === 'btrfs' ? btrfsUuid(folder) : deviceName(statSync(folder).dev);
  if (name === undefined) return '';
  try {
    return `${kind} ${name} ${statSync(`/sys/fs/${kind}/${name}`).ino}`;
  } catch {
    // This file system has no folder in sysfs: the boot id alone has to do.
    return '';
  }
}

/** Major and minor of a 64-bit device number, as Linux packs them. */
function majorMinor(device: number): string {
  const major = Math.floor(device / 256) % 4096;
  const minor = (device % 256) + Math.floor(device / 2 ** 20) * 256;
  return `${major}:${minor}`;
}

function deviceName(device: number): string | undefined {
  try {
    return basename(readlinkSync(`/sys/dev/block/${majorMinor(device)}`));
  } catch {
    // Not on a block device (tmpfs, overlay, network).
    return undefined;
  }
}

/** BTRFS_IOC_FS_INFO, and where in its answer (1 KiB) the 16 bytes of the UUID lie. */
const FS_INFO = { request: 0x8400941f, length: 1024, uuid: 16 } as const;

/** By which btrfs names its folder; its devices may be many, and have many names. */
function btrfsUuid(folder: string): string | undefined {
  const fd = openSync(folder, 'r');
  try {
    const info = Buffer.alloc(FS_INFO.length);
    ioctlBuffer(fd, FS_INFO.request, info);
    return uuidFromBytes(info, FS_INFO.uuid);
  } catch {
    // The boot id alone has to do.
    return undefined;
  } finally {
    closeSync(fd);
  }
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    // Not Linux: no epoch to tell, committed records alone decide after the next start of the host.
    return '';
  }
}
