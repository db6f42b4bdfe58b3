/**
 * Who keeps a mount busy: processes with files of it open, and loop devices on its files. Linux
 * only.
 */

import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { isAtOrBelow } from '../common/path-below.js';

/** What of a process keeps a mount busy, besides its descriptors. */
const PROCESS_LINKS = ['cwd', 'root', 'exe'];

/**
 * One line each: `qemu-system-x86 (pid 4121): /run/layerdisk/mnt/web/disk0.raw`. Reads links only
 * and never the mount itself, which may hang. Processes of other users are seen by root alone.
 */
export function holdersOf(mountpoint: string): string[] {
  return [...loopDevices(mountpoint), ...processes(mountpoint)];
}

function processes(mountpoint: string): string[] {
  const holders: string[] = [];
  for (const pid of list('/proc').filter((name) => /^\d+$/.test(name))) {
    const folder = `/proc/${pid}`;
    const links = [
      ...PROCESS_LINKS.map((name) => `${folder}/${name}`),
      ...list(`${folder}/fd`).map((name) => `${folder}/fd/${name}`),
    ];
    const held = links.map(readLink).find((path) => isUnder(path, mountpoint));
    if (held === undefined) continue;
    const name = readText(`${folder}/comm`) ?? 'a process';
    holders.push(`${name} (pid ${pid}): ${held}`);
  }
  return holders;
}

function loopDevices(mountpoint: string): string[] {
  const holders: string[] = [];
  for (const name of list('/sys/block').filter((entry) => entry.startsWith('loop'))) {
    const file = readText(`/sys/block/${name}/loop/backing_file`);
    if (file !== undefined && isUnder(file, mountpoint)) holders.push(`/dev/${name}: ${file}`);
  }
  return holders;
}

function isUnder(path: string | undefined, folder: string): boolean {
  return path !== undefined && isAtOrBelow(path, folder);
}

// A process may end, or be another user's, at any moment of the look: what cannot be read holds
// nothing that this user could be told about.
function list(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function readLink(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return undefined;
  }
}
