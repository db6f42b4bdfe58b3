/**
 * Mounts in other mount namespaces. `unshare --mount`, and what is built on it, begins with a copy
 * of every mount; a private copy stays when the original is unmounted, and keeps the device in use.
 * Linux only.
 */
import { processFolders, processName, targetOf, textOf } from './kernel-files.js';
import { isMountedFrom, type LoopDevice } from './loop-devices.js';
import { parseMountinfo } from './mountinfo.js';

export interface MountElsewhere {
  /** One of the processes of that namespace. */
  readonly pid: number;
  readonly name: string;
  readonly mountpoint: string;
}

/** The first mount of a device, or of a partition of it, in a namespace other than our own. */
export function findMountElsewhere(loop: LoopDevice): MountElsewhere | undefined {
  const seen = new Set([namespaceOf('/proc/self')]);
  for (const folder of processFolders()) {
    const namespace = namespaceOf(folder);
    if (namespace === undefined || seen.has(namespace)) continue;
    seen.add(namespace);
    const mounts = parseMountinfo(textOf(`${folder}/mountinfo`) ?? '');
    const mount = mounts.find((each) => isMountedFrom(each, loop));
    if (mount === undefined) continue;
    const pid = Number(folder.slice('/proc/'.length));
    return { pid, name: processName(folder), mountpoint: mount.mountpoint };
  }
  return undefined;
}

function namespaceOf(folder: string): string | undefined {
  return targetOf(`${folder}/ns/mnt`);
}
