/**
 * Mounting and unmounting the kernel channel: as root by mount(2), otherwise through fusermount3.
 *
 * INVARIANT: a mount is taken away only when the one on top at the mountpoint is the one that
 * was made here.
 */
import {
  closeSync,
  constants,
  mkdirSync,
  openSync,
  readdirSync,
  realpathSync,
  type StatsFs,
  statSync,
  writeFileSync,
} from 'node:fs';
import { statfs } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { DiskError, errnoName } from '../common/errors.js';
import { type MountEntry, mountedThing, readMounts, topMountAt } from '../host/mountinfo.js';
import {
  isDisconnected,
  MNT_DETACH,
  MNT_FORCE,
  MS_NODEV,
  MS_NOSUID,
  mount,
  UMOUNT_NOFOLLOW,
  umount,
} from '../storage/libc.js';
import { fusermount, fusermountUnmount } from './fusermount.js';

/** Type and source under which our mounts appear in mountinfo: how a later start knows them. */
export const SUBTYPE = 'layerdisk';
const MOUNT_TYPE = `fuse.${SUBTYPE}`;
export const MOUNT_SOURCE = 'layerdisk';

/** How long a mount that may be dead is given to answer. */
const PROBE_TIMEOUT_MS = 5000;

export interface MountOptions {
  /** An absolute path; made when it is missing. */
  readonly mountpoint: string;
  /** Whether users other than the one who mounts may use the files. */
  readonly allowOther: boolean;
  /** Largest read, bytes. */
  readonly maxRead: number;
}

/** A mount of ours. */
export interface Mount {
  /**
   * The connection's /dev/fuse descriptor, close-on-exec. Whoever holds the last copy keeps the
   * mount alive.
   */
  readonly fd: number;
  /** Absolute, without symbolic links. */
  readonly mountpoint: string;
  readonly id: number;
  /** `major:minor`; the minor is the number of the connection. */
  readonly device: string;
  /** Made through fusermount3: unmounted through it, too. */
  readonly unprivileged: boolean;
}

/**
 * Clears a dead mount of ours if there is one, and mounts. Requests wait until somebody serves
 * `fd`.
 */
export async function mountKernelChannel(options: MountOptions): Promise<Mount> {
  const mountpoint = await prepareMountpoint(options.mountpoint, options.allowOther);
  const unprivileged = process.geteuid?.() !== 0;
  const fd = unprivileged
    ? fusermount({ ...options, mountpoint })
    : mountAsRoot({ ...options, mountpoint });
  const entry = topMountAt(mountpoint, readMounts());
  if (entry === undefined || entry.type !== MOUNT_TYPE) {
    closeSync(fd); // The last copy: the kernel ends the connection.
    throw new DiskError('failed', `${mountpoint}: the mount vanished while it was being made`);
  }
  return { fd, mountpoint, id: entry.id, device: entry.device, unprivileged };
}

function mountAsRoot(options: MountOptions): number {
  const fd = openDevice();
  const data = [
    `fd=${fd}`,
    'rootmode=40000',
    'user_id=0',
    'group_id=0',
    'default_permissions',
    `max_read=${options.maxRead}`,
    ...(options.allowOther ? ['allow_other'] : []),
  ];
  try {
    mount({
      source: MOUNT_SOURCE,
      target: options.mountpoint,
      type: MOUNT_TYPE,
      flags: MS_NOSUID | MS_NODEV,
      data: data.join(','),
    });
  } catch (error) {
    closeSync(fd);
    throw mountError(options.mountpoint, error);
  }
  return fd;
}

function openDevice(): number {
  try {
    return openSync('/dev/fuse', constants.O_RDWR);
  } catch (error) {
    const errno = errnoName(error);
    if (errno === 'ENOENT' || errno === 'ENODEV' || errno === 'ENXIO') {
      throw new DiskError('not-supported', '/dev/fuse is missing: the kernel has no FUSE', {
        hint: 'modprobe fuse; in a container: --device /dev/fuse --cap-add SYS_ADMIN',
        cause: error,
      });
    }
    throw new DiskError('not-permitted', `/dev/fuse cannot be opened (${errno})`, { cause: error });
  }
}

function mountError(mountpoint: string, error: unknown): DiskError {
  const errno = errnoName(error) ?? String(error);
  if (errno === 'EPERM') {
    return new DiskError('not-permitted', `${mountpoint}: not permitted to mount here`, {
      hint: 'mounting needs CAP_SYS_ADMIN; in a container: --cap-add SYS_ADMIN --device /dev/fuse',
      cause: error,
    });
  }
  if (errno === 'ENODEV') {
    return new DiskError('not-supported', 'the kernel has no FUSE', {
      hint: 'modprobe fuse',
      cause: error,
    });
  }
  return new DiskError('failed', `${mountpoint}: cannot mount (${errno})`, { cause: error });
}

/**
 * Leaves an empty directory with nothing of ours mounted on it: clears dead mounts of ours,
 * makes it where it is missing.
 * @returns its real path.
 * @throws DiskError `busy`, `exists` when it is not empty, `usage`, `not-permitted`.
 */
export async function prepareMountpoint(path: string, allowOther: boolean): Promise<string> {
  const existing = await probe(path);
  if (existing === 'dead') await clearDeadMount(path);
  if (existing === 'missing') makeDirectory(path, allowOther);
  const mountpoint = realpathSync(path);
  const top = topMountAt(mountpoint, readMounts());
  if (top?.type === MOUNT_TYPE) {
    throw new DiskError('busy', `${mountpoint}: another layerdisk is serving this mountpoint`, {
      // Not `layerdisk daemon stop`: that would be said to whoever asked, not to the one in the
      // way.
      hint: 'name another folder with --mountpoint DIR, or stop the daemon whose store it shows',
    });
  }
  if (top !== undefined) {
    throw new DiskError('busy', `${mountpoint}: ${mountedThing(top)} is mounted there`, {
      hint: 'choose another directory, or unmount it first',
    });
  }
  if (!statSync(mountpoint).isDirectory()) {
    throw new DiskError('usage', `${mountpoint}: the mountpoint is not a directory`);
  }
  if (readdirSync(mountpoint).length > 0) {
    throw new DiskError('exists', `${mountpoint}: the mountpoint is not empty`, {
      hint: 'a mount would hide what is in it: choose another directory or move the files away',
    });
  }
  return mountpoint;
}

/** The control socket lies in the folder above, as a rule: others need not get there. */
function makeDirectory(path: string, allowOther: boolean): void {
  try {
    mkdirSync(path, { recursive: true, mode: allowOther ? 0o755 : 0o700 });
  } catch (error) {
    const errno = errnoName(error) ?? 'EIO';
    const code = errno === 'EACCES' || errno === 'EPERM' ? 'not-permitted' : 'failed';
    throw new DiskError(code, `${path}: cannot make the mountpoint (${errno})`, {
      errno,
      hint: 'name a folder of yours: --mountpoint DIR',
      cause: error,
    });
  }
}

/**
 * What is at a path. Asked on a pool thread and with a time limit, for a FUSE mount answers
 * only if somebody serves it.
 * @throws DiskError `busy` when it does not answer, `not-permitted`.
 */
async function probe(path: string): Promise<'dead' | 'missing' | 'there'> {
  const stop = new AbortController();
  const late = delay(PROBE_TIMEOUT_MS, undefined, { signal: stop.signal }).catch(() => undefined);
  let answer: StatsFs | undefined;
  try {
    // Not stat: attributes that the kernel remembers would hide that the daemon is dead.
    answer = await Promise.race([statfs(path), late]);
  } catch (error) {
    const errno = errnoName(error);
    if (errno === 'ENOENT') return 'missing';
    if (errno === 'ENOTCONN' || errno === 'ECONNABORTED') return 'dead';
    const code = errno === 'EACCES' ? 'not-permitted' : 'failed';
    throw new DiskError(code, `${path}: cannot use it as mountpoint (${errno})`, { cause: error });
  } finally {
    stop.abort();
  }
  if (answer !== undefined) return 'there';
  throw new DiskError('busy', `${path}: whatever is mounted there does not answer`, {
    hint: `see who serves it; to take it away: umount -l ${path}`,
  });
}

/** Takes away mounts of ours whose daemon is dead, as long as one is on top. */
async function clearDeadMount(asked: string): Promise<void> {
  // The last part must not be looked at, for it would only answer ENOTCONN.
  const path = join(realpathSync(dirname(asked)), basename(asked));
  for (;;) {
    const top = topMountAt(path, readMounts());
    if (top === undefined || top.type !== MOUNT_TYPE) {
      throw new DiskError('busy', `${path}: a dead mount that is not ours is in the way`, {
        hint: `umount -l ${path}`,
      });
    }
    await takeAway(path, process.geteuid?.() !== 0, MNT_DETACH);
    if ((await probe(path)) !== 'dead') return;
  }
}

async function takeAway(path: string, unprivileged: boolean, flags: number): Promise<void> {
  if (unprivileged) await fusermountUnmount(path, (flags & MNT_DETACH) !== 0);
  else await umount(path, flags | UMOUNT_NOFOLLOW);
}

/**
 * A mount as it lies now: it goes with a folder above it that is renamed, and with `mount --move`.
 * Its numbers tell it only while its connection lives: after that they are given to others.
 */
export function whereItIs(mounted: Mount): Mount {
  const entry = readMounts().find(({ id, device }) => {
    return id === mounted.id && device === mounted.device;
  });
  if (entry === undefined || entry.mountpoint === mounted.mountpoint) return mounted;
  // Asked after the look: what was alive after it was alive then.
  const isKnown = mounted.fd >= 0 && !isDisconnected(mounted.fd);
  return isKnown ? { ...mounted, mountpoint: entry.mountpoint } : mounted;
}

/** Whether a mount still stands where it was made: `covered` when another one lies on top of it. */
export function mountState(mounted: Mount): 'there' | 'covered' | 'gone' {
  const mounts = readMounts();
  // Numbers of what is gone are given to the next mount, anywhere: the place is part of it.
  const isOurs = (entry: MountEntry | undefined) =>
    entry !== undefined &&
    entry.id === mounted.id &&
    entry.device === mounted.device &&
    entry.mountpoint === mounted.mountpoint;
  if (isOurs(topMountAt(mounted.mountpoint, mounts))) return 'there';
  return mounts.some(isOurs) ? 'covered' : 'gone';
}

/**
 * Unmounts; `force` takes it away from whoever uses it. Somebody must go on serving requests
 * meanwhile.
 * @returns false when it is in use (and not `force`).
 * @throws DiskError `busy` when another mount lies on top.
 */
export async function unmountKernelChannel(made: Mount, force: boolean): Promise<boolean> {
  const mounted = whereItIs(made);
  const { mountpoint, unprivileged } = mounted;
  const state = mountState(mounted);
  if (state === 'covered') {
    throw new DiskError('busy', `${mountpoint}: something else has been mounted over it`, {
      hint: `umount ${mountpoint}, then try again`,
    });
  }
  try {
    if (state === 'there') {
      await takeAway(mountpoint, unprivileged, force ? MNT_FORCE | MNT_DETACH : 0);
    }
  } catch (error) {
    const errno = errnoName(error);
    if (errno === 'EBUSY') return false;
    // EINVAL: no mount is there. Somebody was faster.
    if (errno !== 'EINVAL' || mountState(mounted) !== 'gone') {
      throw new DiskError('failed', `${mountpoint}: cannot unmount (${errno})`, { cause: error });
    }
  }
  // As root, MNT_FORCE has ended the connection; its number may belong to another mount by now.
  if (force && (unprivileged || state === 'gone')) abortConnection(mounted);
  return true;
}

/** Ends a connection that lives on without its mount, because files are open: they get errors. */
function abortConnection({ device }: Mount): void {
  // Given to a mount again already: that one is somebody else's.
  if (readMounts().some((mount) => mount.device === device)) return;
  const number = device.split(':')[1] ?? '';
  try {
    writeFileSync(`/sys/fs/fuse/connections/${number}/abort`, '1');
  } catch {
    // It has ended, or fusectl is not mounted here: it then lives until the last file is closed.
  }
}
