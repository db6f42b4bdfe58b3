/** What is mounted where, from /proc/PID/mountinfo (format: proc_pid_mountinfo(5)). */

import { readFileSync } from 'node:fs';
import { isAtOrBelow } from '../common/path-below.js';

export interface MountEntry {
  /** Identifies the mount until it is gone; may be given to another one later. */
  readonly id: number;
  /** `major:minor`, as in `st_dev`. */
  readonly device: string;
  /** Path within the file system that is visible here: other than `/` for bind mounts. */
  readonly root: string;
  readonly mountpoint: string;
  /** `fuse.layerdisk`, `ext4`, ... */
  readonly type: string;
  readonly source: string;
}

/**
 * The mounts that this process sees, oldest first: of two at one place the later one is on top.
 * None where the host has no /proc (macOS).
 */
export function readMounts(): readonly MountEntry[] {
  if (process.platform !== 'linux') return [];
  return parseMountinfo(readFileSync('/proc/self/mountinfo', 'utf8'));
}

/** What is mounted, for messages: a source may be any word, such as "none". */
export function mountedThing({ source, type }: MountEntry): string {
  return source.startsWith('/') ? source : `a file system (${type})`;
}

/** Lines that are not understood are left out. */
export function parseMountinfo(text: string): readonly MountEntry[] {
  const entries: MountEntry[] = [];
  for (const line of text.split('\n')) {
    // Fields before the lone "-": id parent device root mountpoint options [optional ...];
    // after it: type source options.
    const [left, right] = line.split(' - ', 2);
    const [id, , device, root, mountpoint] = (left ?? '').split(' ');
    const [type, source] = (right ?? '').split(' ');
    if (device === undefined || root === undefined || mountpoint === undefined) continue;
    if (type === undefined || source === undefined) continue;
    entries.push({
      id: Number(id),
      device,
      root: unescapePath(root),
      mountpoint: unescapePath(mountpoint),
      type,
      source: unescapePath(source),
    });
  }
  return entries;
}

/**
 * The kernel writes space, tab, newline, backslash and # as a backslash and three octal digits,
 * byte by byte.
 */
function unescapePath(text: string): string {
  if (!text.includes('\\')) return text;
  const bytes: number[] = [];
  const raw = Buffer.from(text);
  for (let index = 0; index < raw.length; index += 1) {
    const octal = /^\\([0-7]{3})/.exec(raw.toString('latin1', index, index + 4))?.[1];
    if (octal === undefined) {
      bytes.push(raw[index] ?? 0);
    } else {
      bytes.push(Number.parseInt(octal, 8));
      index += 3;
    }
  }
  return Buffer.from(bytes).toString('utf8');
}

/** The mount on top at exactly this path, undefined where none is. */
export function topMountAt(
  mountpoint: string,
  mounts: readonly MountEntry[],
): MountEntry | undefined {
  return mounts.findLast((entry) => entry.mountpoint === mountpoint);
}

/** The mount that a path lies on; of several at one place the one on top. */
export function mountOf(path: string, mounts: readonly MountEntry[]): MountEntry | undefined {
  let found: MountEntry | undefined;
  for (const entry of mounts) {
    const { mountpoint } = entry;
    if (!isAtOrBelow(path, mountpoint)) continue;
    if (found === undefined || mountpoint.length >= found.mountpoint.length) found = entry;
  }
  return found;
}
