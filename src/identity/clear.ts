/** Clears what makes a system itself in a file system that is mounted on the host. */
import { GuestFolder } from './guest-folder.js';
import { IN_VAR, TRACES, type Trace, VAR_TRACES } from './traces.js';

/**
 * Folders of a btrfs in which distributions keep the system: a subvolume each. openSUSE has a
 * snapshot deep below the first for it, which is mounted by default, and `/var` in the first.
 */
const TOP_SUBVOLUME = '@';
const SYSTEMS = [TOP_SUBVOLUME, '@rootfs', 'root'];
const VAR_SUBVOLUME = '@var';

export interface ClearedFile {
  readonly what: string;
  /** From the file system's root. */
  readonly path: string;
}

export interface LeftFile extends ClearedFile {
  readonly why: string;
}

export interface Clearing {
  readonly cleared: ClearedFile[];
  /** What is there and was not touched. */
  readonly left: LeftFile[];
}

/**
 * Adds to `clearing` what it finds below this mount point.
 * @returns whether there is a system at all: a folder `/etc` with programs beside it.
 * @throws DiskError `failed`.
 */
export function clearMounted(mountpoint: string, clearing: Clearing): boolean {
  const root = GuestFolder.openRoot(mountpoint);
  try {
    let found = clearFolder(root, clearing);
    for (const name of [...SYSTEMS, VAR_SUBVOLUME]) {
      if (root.kindOf(name) !== 'folder') continue;
      const folder = root.open(name);
      try {
        if (name === VAR_SUBVOLUME) clearAll(folder, VAR_TRACES, clearing);
        else if (isSystem(folder)) found = clearFolder(folder, clearing);
        else if (name === TOP_SUBVOLUME) clearAll(folder, IN_VAR, clearing);
      } finally {
        folder.close();
      }
    }
    return found;
  } finally {
    root.close();
  }
}

/** @returns whether it is the root of a system. */
function clearFolder(folder: GuestFolder, clearing: Clearing): boolean {
  const found = isSystem(folder);
  if (found) clearAll(folder, TRACES, clearing);
  else if (isVar(folder)) clearAll(folder, VAR_TRACES, clearing);
  return found;
}

function isSystem(folder: GuestFolder): boolean {
  const has = (name: string) => folder.kindOf(name) !== 'absent';
  return folder.kindOf('etc') === 'folder' && (has('usr') || has('bin'));
}

/** A file system of its own for `/var`. */
function isVar(folder: GuestFolder): boolean {
  return ['lib', 'log', 'cache'].every((name) => folder.kindOf(name) === 'folder');
}

function clearAll(root: GuestFolder, traces: readonly Trace[], clearing: Clearing): void {
  for (const trace of traces) clearBelow(root, trace.folder, trace, clearing);
}

function clearBelow(
  folder: GuestFolder,
  way: readonly string[],
  trace: Trace,
  clearing: Clearing,
): void {
  const [next, ...rest] = way;
  if (next === undefined) {
    for (const name of folder.names()) {
      if (trace.name.test(name)) clearEntry(folder, name, trace, clearing);
    }
    return;
  }
  const kind = folder.kindOf(next);
  if (kind === 'link') {
    const path = `${folder.path}/${next}`;
    clearing.left.push({ what: trace.what, path, why: 'a symbolic link is not followed' });
  }
  if (kind !== 'folder') return;
  const inner = folder.open(next);
  try {
    clearBelow(inner, rest, trace, clearing);
  } finally {
    inner.close();
  }
}

function clearEntry(folder: GuestFolder, name: string, trace: Trace, clearing: Clearing): void {
  const { what } = trace;
  const path = `${folder.path}/${name}`;
  const kind = folder.kindOf(name);
  if (kind !== 'file') {
    if (kind === 'link' && trace.linkIsFine === true) return;
    const why = kind === 'link' ? 'a symbolic link is not followed' : 'it is no regular file';
    clearing.left.push({ what, path, why });
    return;
  }
  if (trace.how === 'remove') folder.remove(name);
  else if (!folder.empty(name)) return;
  clearing.cleared.push({ what, path });
}
