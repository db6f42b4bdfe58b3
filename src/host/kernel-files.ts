/**
 * Reading /proc and /sys: processes and devices come and go at any moment of a look, and some are
 * hidden. What can't be read is not there (any more).
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

/** Names in a folder; none when it can't be read. */
export function namesIn(folder: string): string[] {
  return unlessGone(() => readdirSync(folder)) ?? [];
}

/** A file's text without its last line end. */
export function textOf(path: string): string | undefined {
  return unlessGone(() => readFileSync(path, 'utf8').replace(/\n$/, ''));
}

/** Where a symbolic link leads. */
export function targetOf(link: string): string | undefined {
  return unlessGone(() => readlinkSync(link));
}

/** The folders of all processes, as `/proc/12`. */
export function processFolders(): string[] {
  return namesIn('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => `/proc/${pid}`);
}

/** The name of the process at a folder of /proc. */
export function processName(folder: string): string {
  return textOf(`${folder}/comm`) ?? 'a process';
}

/**
 * The threads that are left of a process that is dead, but for its first, which stays until they
 * have ended and until its parent has asked how it ended. In a container the first process is often
 * one that never asks.
 * @returns undefined while it lives, where it is gone, and where there is no /proc (macOS).
 */
export function threadsOfDead(pid: number): string[] | undefined {
  // `pid (name) STATE ...`
  if (!/\) Z [^)]*$/.test(textOf(`/proc/${pid}/stat`) ?? '')) return undefined;
  return namesIn(`/proc/${pid}/task`).filter((thread) => thread !== String(pid));
}

function unlessGone<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch {
    return undefined;
  }
}
