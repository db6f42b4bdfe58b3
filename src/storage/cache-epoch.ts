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
import { readdirSync, readFileSync, readlinkSync, realpathSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { isAtOrBelow } from '../common/path-below.js';

/** @returns 32 hexadecimal digits. */
export function cacheEpoch(folder: string): string {
  const parts = [readText('/proc/sys/kernel/random/boot_id'), superblockInstance(folder)];
  return createHash('sha256').update(parts.join('\n')).digest('hex').slice(0, 32);
}

/** Something that differs between two mounts of one file system; empty where nothing shows it. */
function superblockInstance(folder: string): string {
  const mount = mountOf(realpathSync(folder));
  if (mount === undefined) return '';
  const { type, source } = mount;
  const name = type === 'btrfs' ? btrfsFolder(source) : deviceName(statSync(folder).dev);
  if (name === undefined) return '';
  try {
    return `${type} ${name} ${statSync(`/sys/fs/${type}/${name}`).ino}`;
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

/** The mount that a path lies on: of those whose place leads to it, the longest, made last. */
function mountOf(path: string): { type: string; source: string } | undefined {
  let found: { type: string; source: string } | undefined;
  let length = -1;
  for (const line of readText('/proc/self/mountinfo').split('\n')) {
    const [left, right] = line.split(' - ');
    const place = left?.split(' ')[4];
    const [type, source] = right?.split(' ') ?? [];
    if (place === undefined || type === undefined || source === undefined) continue;
    if (!isAtOrBelow(path, place) || place.length < length) continue;
    length = place.length;
    found = { type, source };
  }
  return found;
}

function deviceName(device: number): string | undefined {
  try {
    return basename(readlinkSync(`/sys/dev/block/${majorMinor(device)}`));
  } catch {
    // Not on a block device (tmpfs, overlay, network).
    return undefined;
  }
}

/** btrfs names its sysfs folder by the file system's UUID and lists its devices there. */
function btrfsFolder(source: string): string | undefined {
  let folders: string[];
  try {
    folders = readdirSync('/sys/fs/btrfs');
  } catch {
    return undefined;
  }
  return folders.find((folder) => {
    try {
      return readdirSync(join('/sys/fs/btrfs', folder, 'devices')).includes(basename(source));
    } catch {
      // `features` and other folders that are no file system.
      return false;
    }
  });
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    // Not Linux: no epoch to tell, committed records alone decide after the next start of the host.
    return '';
  }
}
