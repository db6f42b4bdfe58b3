/** What a store and the processes that serve it take of their host. */
import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { join, relative } from 'node:path';
import type { TestDaemon } from './daemon.js';

export interface Footprint {
  /** Open descriptors of the daemon by kind: path, or `socket`, `anon_inode:[eventpoll]`. */
  readonly daemon: readonly string[];
  /** Without those that lead to daemons: after a death it has one more of them for a while. */
  readonly supervisor: readonly string[];
  /** Files of the store with the bytes of the host that each takes; its log and lock aside. */
  readonly files: readonly string[];
}

/** Written to by every daemon that starts. */
const OF_EVERY_START = new Set(['daemon.log', 'lock']);
const SECTOR = 512;

/** @param daemon one with a supervisor, at rest. */
export function footprintOf(daemon: TestDaemon): Footprint {
  return {
    daemon: descriptorsOf(daemon.servingPid),
    supervisor: withoutLinks(descriptorsOf(daemon.pid), childrenOf(daemon.pid).length),
    files: filesOf(daemon.store),
  };
}

/** The supervisor has two sockets for each daemon that lives: for words and for descriptors. */
function withoutLinks(descriptors: readonly string[], daemons: number): string[] {
  const sockets = descriptors.filter((kind) => kind === 'socket');
  const others = descriptors.filter((kind) => kind !== 'socket');
  return [...others, ...sockets.slice(2 * daemons)];
}

/** Processes that the first thread of another one started. */
export function childrenOf(pid: number): number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
  return children.split(' ').filter(Boolean).map(Number);
}

/** Resident memory of a process, bytes. */
export function residentBytes(pid: number): number {
  const [, kilobytes] =
    /^VmRSS:\s*(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
  return Number(kilobytes) * 1024;
}

function descriptorsOf(pid: number): string[] {
  return openFiles(pid)
    .map((target) => target.replace(/:\[\d+\]$/, ''))
    .sort();
}

/** What each open descriptor of a process leads to: a path, ` (deleted)` after it, `socket:[7]`. */
export function openFiles(pid: number): string[] {
  const folder = `/proc/${pid}/fd`;
  return readdirSync(folder)
    .map((fd) => targetOf(join(folder, fd)))
    .filter((target) => target !== undefined);
}

/** Undefined for one that was closed meanwhile. */
function targetOf(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

function filesOf(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile() && !OF_EVERY_START.has(entry.name))
    .map((entry) => join(entry.parentPath, entry.name))
    .flatMap((path) => {
      // One may go between the two looks.
      const file = statSync(path, { throwIfNoEntry: false });
      return file === undefined ? [] : [`${relative(folder, path)}: ${file.blocks * SECTOR}`];
    })
    .sort();
}
