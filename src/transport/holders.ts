/**
 * Who uses a mount: processes, loop devices and mounts, found in /proc and /sys without
 * touching the mount itself.
 */

import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { DiskError, errnoName } from '../common/errors.js';
import { isAtOrBelow } from '../common/path-below.js';
import { readMounts } from '../host/mountinfo.js';
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

/** How long a process may take to show its mappings, milliseconds. */
const MAPPINGS_LIMIT_MS = 500;
/** Reads of mappings that hang at a time: each has a thread of the pool, which has few. */
const MOST_STUCK = 2;

/**
 * Finds everybody who uses what is under `mountpoint` (a real path) on the file system `device`
 * (`major:minor`).
 *
 * INVARIANT: the calling thread never reads what needs a process's memory map (`maps`, `cmdline`,
 * `environ`). One that takes a dirty mapping of ours away holds it while the kernel writes back,
 * and whoever asks for it waits until that is done: by us.
 */
export class HolderSearch {
  readonly #asked = new Map<string, Promise<string>>();
  /** Those of them that take too long. */
  readonly #stuck = new Set<string>();

  async find(mountpoint: string, device: string): Promise<readonly Holder[]> {
    const isUnder = (path: string) => isAtOrBelow(path, mountpoint);
    return [
      ...loopHolders(isUnder),
      ...mountHolders(mountpoint, device, isUnder),
      ...(await this.#processHolders(isUnder)),
    ];
  }

  async #processHolders(isUnder: (path: string) => boolean): Promise<Holder[]> {
    const holders: Holder[] = [];
    for (const pid of readdirSync('/proc')) {
      if (!/^\d+$/.test(pid)) continue;
      const uses = linkUses(`/proc/${pid}`, isUnder);
      for (const path of await this.#mapped(pid)) {
        if (isUnder(path) && !uses.has(path)) uses.set(path, 'mapping');
      }
      if (uses.size === 0) continue;
      const name = unlessGone(() => readFileSync(`/proc/${pid}/comm`, 'utf8'))?.trimEnd() ?? '?';
      for (const [path, how] of uses) holders.push({ pid: Number(pid), name, how, path });
    }
    return holders;
  }

  /** Files that a process has mapped; none when it does not say. */
  async #mapped(pid: string): Promise<readonly string[]> {
    if (this.#stuck.has(pid) || this.#stuck.size >= MOST_STUCK) return [];
    const stop = new AbortController();
    const late = delay(MAPPINGS_LIMIT_MS, undefined, { signal: stop.signal }).catch(() => '');
    try {
      const maps = await Promise.race([this.#asked.get(pid) ?? this.#ask(pid), late]);
      if (maps === undefined) this.#stuck.add(pid);
      return maps?.split('\n').flatMap((line) => line.match(/\/.*$/)?.[0] ?? []) ?? [];
    } finally {
      stop.abort();
    }
  }

  #ask(pid: string): Promise<string> {
    const told = readFile(`/proc/${pid}/maps`, 'utf8')
      .catch((error: unknown) => {
        if (VANISHED.has(errnoName(error) ?? '')) return '';
        throw error;
      })
      .finally(() => {
        this.#asked.delete(pid);
        this.#stuck.delete(pid);
      });
    this.#asked.set(pid, told);
    return told;
  }
}

/** One line naming them, for an error message: `dd (pid 12), /dev/loop0`. */
function describeHolders(holders: readonly Holder[]): string {
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

/** Path -> the first way in which the process at `proc` uses it by a link of its folder. */
function linkUses(proc: string, isUnder: (path: string) => boolean): Map<string, Holder['how']> {
  const uses = new Map<string, Holder['how']>();
  const add = (name: string, how: Holder['how']) => {
    const path = unlessGone(() => readlinkSync(`${proc}/${name}`));
    if (path !== undefined && isUnder(path) && !uses.has(path)) uses.set(path, how);
  };
  for (const fd of unlessGone(() => readdirSync(`${proc}/fd`)) ?? []) add(`fd/${fd}`, 'open file');
  add('cwd', 'working directory');
  add('root', 'working directory');
  add('exe', 'program');
  return uses;
}
