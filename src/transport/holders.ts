/**
 * Who uses a mount: processes, loop devices and mounts, found in /proc and /sys without
 * touching the mount itself.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { DiskError, errnoName } from '../common/errors.js';
import { readMounts } from './mountinfo.js';
import type { Holder } from './transport.js';

/** What may happen to an entry of /proc or /sys while it is read: gone, or not ours to see. */
const VANISHED = new Set(['ENOENT', 'ESRCH', 'EACCES', 'EPERM', 'ENOTDIR', 'EINVAL', 'ENXIO']);

/** The value, or undefined where the entry has gone or is hidden. */
function unlessGone<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch (error) {
    if (VANISHED.has(errnoName(error) ?? '')) return undefined;
    throw error;
  }
}

/**
 * Everybody who uses what is under `mountpoint` (a real path) on the file system `device`
 * (`major:minor`).
 */
export function findHolders(mountpoint: string, device: string): readonly Holder[] {
  const isUnder = (path: string) => path === mountpoint || path.startsWith(`${mountpoint}/`);
  return [
    ...loopHolders(isUnder),
    ...mountHolders(mountpoint, device, isUnder),
    ...processHolders(isUnder),
  ];
}

/** One line naming them, for an error message: `dd (pid 12), /dev/loop0`. */
export function describeHolders(holders: readonly Holder[]): string {
  const names = holders.map(({ pid, name }) => (pid === 0 ? name : `${name} (pid ${pid})`));
  return [...new Set(names)].join(', ');
}

/** The error for a mount that is in use. */
export function inUse(mountpoint: string, holders: readonly Holder[]): DiskError {
  const who = holders.length === 0 ? 'somebody' : describeHolders(holders);
  return new DiskError('busy', `${mountpoint} is in use by ${who}`, {
    hint: 'end those programs, detach those devices, then try again',
  });
}

function loopHolders(isUnder: (path: string) => boolean): Holder[] {
  const holders: Holder[] = [];
  for (const name of unlessGone(() => readdirSync('/sys/block')) ?? []) {
    if (!name.startsWith('loop')) continue;
    const file = `/sys/block/${name}/loop/backing_file`;
    const path = unlessGone(() => readFileSync(file, 'utf8'))?.trimEnd();
    if (path === undefined || !isUnder(path)) continue;
    holders.push({ pid: 0, name: `/dev/${name}`, how: 'loop device', path });
  }
  return holders;
}

/** Bind mounts of our files elsewhere, and other file systems mounted on our directories. */
function mountHolders(
  mountpoint: string,
  device: string,
  isUnder: (path: string) => boolean,
): Holder[] {
  return readMounts()
    .filter((entry) => {
      const bound = entry.device === device && entry.mountpoint !== mountpoint;
      return bound || (entry.device !== device && isUnder(entry.mountpoint));
    })
    .map((entry) => ({ pid: 0, name: entry.mountpoint, how: 'mount', path: entry.root }));
}

function processHolders(isUnder: (path: string) => boolean): Holder[] {
  const holders: Holder[] = [];
  for (const pid of readdirSync('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    const uses = processUses(`/proc/${pid}`, isUnder);
    if (uses.size === 0) continue;
    const name = unlessGone(() => readFileSync(`/proc/${pid}/comm`, 'utf8'))?.trimEnd() ?? '?';
    for (const [path, how] of uses) holders.push({ pid: Number(pid), name, how, path });
  }
  return holders;
}

/** Path -> the first way in which the process at `proc` uses it. */
function processUses(proc: string, isUnder: (path: string) => boolean): Map<string, Holder['how']> {
  const uses = new Map<string, Holder['how']>();
  const add = (path: string | undefined, how: Holder['how']) => {
    if (path !== undefined && isUnder(path) && !uses.has(path)) uses.set(path, how);
  };
  const link = (name: string) => unlessGone(() => readlinkSync(`${proc}/${name}`));
  for (const fd of unlessGone(() => readdirSync(`${proc}/fd`)) ?? []) {
    add(link(`fd/${fd}`), 'open file');
  }
  add(link('cwd'), 'working directory');
  add(link('root'), 'working directory');
  add(link('exe'), 'program');
  for (const line of (unlessGone(() => readFileSync(`${proc}/maps`, 'utf8')) ?? '').split('\n')) {
    const start = line.indexOf('/');
    if (start >= 0) add(line.slice(start), 'mapping');
  }
  return uses;
}
