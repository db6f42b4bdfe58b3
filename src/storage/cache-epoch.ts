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
import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';

/** @returns 32 hexadecimal digits. */
export function cacheEpoch(folder: string): string {
  const parts = [readText('/proc/sys/kernel/random/boot_id'), superblockInstance(folder)];
  return createHash('sha256').update(parts.join('\n')).digest('hex').slice(0, 32);
}

/**
 * Something that differs between two mounts of one file system; empty where the kernel shows
 * nothing.
 */
function superblockInstance(folder: string): string {
  const device = statSync(folder).dev;
  const type = fileSystemType(device);
  if (type === undefined) return '';
  const name = type.name === 'btrfs' ? btrfsFolder(type.source) : deviceName(device);
  if (name === undefined) return '';
  try {
    return `${type.name} ${name} ${statSync(`/sys/fs/${type.name}/${name}`).ino}`;
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

function fileSystemType(device: number): { name: string; source: string } | undefined {
  const id = majorMinor(device);
  for (const line of readText('/proc/self/mountinfo').split('\n')) {
    const [left, right] = line.split(' - ');
    if (left === undefined || right === undefined || left.split(' ')[2] !== id) continue;
    const [name, source] = right.split(' ');
    if (name !== undefined && source !== undefined) return { name, source };
  }
  return undefined;
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
