/** Processes that keep a device or a mounted file system busy, from /proc. Linux only. */
import { isAtOrBelow } from '../../common/path-below.js';
import { namesIn, processFolders, processName, targetOf } from '../../host/kernel-files.js';

export interface Process {
  readonly pid: number;
  readonly name: string;
}

/** What of a process keeps things busy, besides its descriptors. */
const LINKS = ['cwd', 'root', 'exe'];
/** Processes that a message names before it counts the rest. */
const NAMED = 3;

/**
 * @param path of a device, or of a directory that a file system is mounted at: what lies below
 * counts, too.
 */
export function findProcesses(path: string): Process[] {
  const isUser = (held: string) => isAtOrBelow(held, path);
  const found: Process[] = [];
  for (const folder of processFolders()) {
    const links = [...LINKS, ...namesIn(`${folder}/fd`).map((fd) => `fd/${fd}`)];
    if (!links.some((link) => isUser(targetOf(`${folder}/${link}`) ?? ''))) continue;
    found.push({ pid: Number(folder.slice('/proc/'.length)), name: processName(folder) });
  }
  return found;
}

/** `bash (pid 12), vim (pid 34)`; empty for none. */
export function describeProcesses(processes: readonly Process[]): string {
  const named = processes.slice(0, NAMED).map(({ name, pid }) => `${name} (pid ${pid})`);
  if (processes.length > NAMED) named.push(`${processes.length - NAMED} more`);
  return named.join(', ');
}
