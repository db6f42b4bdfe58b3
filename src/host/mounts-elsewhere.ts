/**
 * Mounts in other mount namespaces. `unshare --mount`, and what is built on it, begins with a copy
 * of every mount; a private copy stays when the original is unmounted, and keeps the device in use.
 * Linux only.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { isMountedFrom, type LoopDevice } from './loop-devices.js';
import { type MountEntry, parseMountinfo } from './mountinfo.js';

export interface MountElsewhere {
  /** One of the processes of that namespace. */
  readonly pid: number;
  readonly name: string;
  readonly mountpoint: string;
}

/** The first mount of a device, or of a partition of it, in a namespace other than our own. */
export function findMountElsewhere(loop: LoopDevice): MountElsewhere | undefined {
  const seen = new Set([namespaceOf('self')]);
  for (const pid of readdirSync('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    const namespace = namespaceOf(pid);
    if (namespace === undefined || seen.has(namespace)) continue;
    seen.add(namespace);
    const mount = mountsOf(pid).find((each) => isMountedFrom(each, loop));
    if (mount === undefined) continue;
    const name = unlessGone(() => readFileSync(`/proc/${pid}/comm`, 'utf8').trim());
    return { pid: Number(pid), name: name ?? 'a process', mountpoint: mount.mountpoint };
  }
  return undefined;
}

function namespaceOf(pid: string): string | undefined {
  return unlessGone(() => readlinkSync(`/proc/${pid}/ns/mnt`));
}

function mountsOf(pid: string): readonly MountEntry[] {
  return parseMountinfo(unlessGone(() => readFileSync(`/proc/${pid}/mountinfo`, 'utf8')) ?? '');
}

// A process may end, or be hidden, at any moment of the look: what can't be read holds nothing.
function unlessGone<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch {
    return undefined;
  }
}
