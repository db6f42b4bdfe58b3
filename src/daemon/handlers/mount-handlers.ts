/** File systems of disks mounted into the host: the methods `mount` and `unmount`. */

import { realpath, stat } from 'node:fs/promises';
import { DiskError, errnoName } from '../../common/errors.js';
import { isAtOrBelow } from '../../common/path-below.js';
import { shellWord } from '../../common/shell-word.js';
import type { MountView, Params } from '../../control/protocol.js';
import { waitUntilGone } from '../../host/end-loop-device.js';
import { mountOptionsOf, type Place, probeType } from '../../host/file-systems.js';
import { type CommandResult, commandError, runCommand } from '../../host/host-command.js';
import { isMountedFrom, isOn, type LoopDevice, listLoopDevices } from '../../host/loop-devices.js';
import { type MountEntry, mountedThing, readMounts, topMountAt } from '../../host/mountinfo.js';
import { findPartition } from '../../host/partitions.js';
import {
  type AttachSources,
  alreadyAttached,
  exclusivelyFor,
  flushDisk,
  refuseBesideGuest,
  refuseUnopenable,
  refuseWithoutRoot,
  wholeDevice,
} from './attached-disks.js';
import { mountFailure } from './mount-failure.js';
import { describeProcesses, findProcesses } from './processes.js';
import { type ResolvedTarget, resolveTarget } from './targets.js';

export async function mount(sources: AttachSources, params: Params<'mount'>): Promise<MountView> {
  const { directory: asked, partition, readOnly: wanted = false, ...named } = params;
  refuseWithoutRoot('mount a disk');
  const directory = await checkDirectory(sources, asked);
  return sources.service.exclusively(named.vm, async () => {
    const target = resolveTarget(sources, named);
    const readOnly = wanted || target.readOnly;
    if (!readOnly) refuseBesideGuest(sources, target);
    await refuseUnopenable(sources, target);
    const place =
      partition === undefined
        ? { offset: 0, size: 0 }
        : await findPartition(target.path, partition);
    const { source, loopOptions } = mountSource(target, place, readOnly);
    const type = await probeType(target.path, { offset: place.offset, size: 0 }, 'filesystem');
    const extra = [...mountOptionsOf(type), ...loopOptions];
    const options = ['nosuid', 'nodev', readOnly ? 'ro' : 'rw', ...extra];
    const result = await runCommand('mount', ['-o', options.join(','), '--', source, directory]);
    if (result.code !== 0) {
      throw (
        mountedOtherwise(source, readOnly) ??
        (await mountFailure(target, result, { partition, type, readOnly }))
      );
    }
    return viewMount(directory);
  });
}

/**
 * What to give to mount(8). A file system that is mounted already is mounted from the same device
 * again: two devices on the same bytes would be two caches.
 */
function mountSource(
  target: ResolvedTarget,
  place: Place,
  readOnly: boolean,
): { source: string; loopOptions: string[] } {
  const whole = wholeDevice(target.path);
  const file = whole?.device ?? target.path;
  const same =
    place.size === 0
      ? whole
      : listLoopDevices().find((each) => {
          const { offset, sizeLimit } = each;
          return each.file === file && offset === place.offset && sizeLimit === place.size;
        });
  const lower = same ?? whole;
  if (lower?.readOnly && !readOnly) throw alreadyAttached(target, lower);
  if (same !== undefined) return { source: same.device, loopOptions: [] };
  const loopOptions = ['loop'];
  if (place.size > 0) loopOptions.push(`offset=${place.offset}`, `sizelimit=${place.size}`);
  return { source: file, loopOptions };
}

/** The kernel mounts one device for reading and writing or for reading only, never for both. */
function mountedOtherwise(source: string, readOnly: boolean): DiskError | undefined {
  const there = readMounts().find((entry) => entry.source === source);
  if (there === undefined) return undefined;
  const { mountpoint } = there;
  const how = readOnly ? 'for writing' : 'read-only';
  return new DiskError('busy', `${source} is already mounted ${how} at ${mountpoint}`, {
    errno: 'EBUSY',
    hint:
      `layerdisk unmount ${shellWord(mountpoint)}, ` +
      'or mount a snapshot: layerdisk snapshot take VM@NAME',
  });
}

function viewMount(directory: string): MountView {
  const entry = topMountAt(directory, readMounts());
  if (entry === undefined) {
    throw new DiskError('failed', `${directory} was unmounted again by somebody else`);
  }
  const loop = loopOf(entry);
  const device = loop?.device ?? entry.source;
  return { directory, device, source: entry.source, fileSystem: entry.type };
}

/** @throws DiskError `usage`, `not-found`, `busy` for what is no place to mount at. */
async function checkDirectory(sources: AttachSources, asked: string): Promise<string> {
  const { mountpoint } = sources;
  // It may have been moved away: then its name is what is to be kept free.
  const store = await realpath(sources.store).catch(() => sources.store);
  // By name first: a look into our own mount is for our own threads to answer.
  const directory = isAtOrBelow(asked, mountpoint) ? asked : await resolveDirectory(asked);
  for (const own of [mountpoint, store]) {
    const isHidden = isAtOrBelow(own, directory);
    if (!isHidden && !isAtOrBelow(directory, own)) continue;
    const why = isHidden ? `: a mount there would hide ${own}` : ' belongs to layerdisk itself';
    throw new DiskError('usage', `${asked}${why}`, { hint: 'mount at a directory of your own' });
  }
  const there = topMountAt(directory, readMounts());
  if (there === undefined) return directory;
  throw new DiskError('busy', `${mountedThing(there)} is already mounted at ${directory}`, {
    errno: 'EBUSY',
    hint: 'unmount it first, or choose another directory',
  });
}

async function resolveDirectory(asked: string): Promise<string> {
  try {
    const directory = await realpath(asked);
    if ((await stat(directory)).isDirectory()) return directory;
  } catch (error) {
    const errno = errnoName(error) ?? 'EIO';
    const code = errno === 'ENOENT' ? 'not-found' : 'failed';
    throw new DiskError(code, `${asked}: there is no such directory (${errno})`, {
      hint: `make it first: mkdir -p ${shellWord(asked)}`,
    });
  }
  throw new DiskError('usage', `${asked} is not a directory`, {
    hint: 'name the folder in which the file system is to be seen',
  });
}

export async function unmount(sources: AttachSources, asked: string): Promise<void> {
  refuseWithoutRoot('unmount a disk');
  const { directory, entry, chain, file } = await findMount(asked);
  if (entry === undefined || file === undefined || !file.startsWith(`${sources.mountpoint}/`)) {
    throw new DiskError('not-found', `no disk of layerdisk is mounted at ${asked}`, {
      hint: 'see what is: findmnt',
    });
  }
  await exclusivelyFor(sources, file, async () => {
    const result = await runCommand('umount', ['--', directory]);
    if (result.code !== 0) throw await unmountFailure(entry, result);
    for (const loop of chain) {
      const isElsewhere = readMounts().some((each) => isMountedFrom(each, loop));
      if (!loop.autoclear || isElsewhere) break;
      await waitUntilGone(loop);
    }
    await flushDisk(sources, file);
  });
}

/** What is mounted at a directory, and the file at the bottom of it. */
export async function findMount(asked: string) {
  // A mount point whose file system is broken can't be resolved any more: taken by its name then.
  const directory = await realpath(asked).catch(() => asked);
  const entry = topMountAt(directory, readMounts());
  const chain = entry === undefined ? [] : loopsBelow(entry);
  return { directory, entry, chain, file: chain.at(-1)?.file };
}

/** The loop devices under a mount, the one that is mounted first. */
function loopsBelow(entry: MountEntry): LoopDevice[] {
  const chain: LoopDevice[] = [];
  const all = listLoopDevices();
  for (let next = loopOf(entry, all); next !== undefined; ) {
    chain.push(next);
    const upper: LoopDevice = next;
    next = all.find((lower) => isOn(upper, lower));
  }
  return chain;
}

function loopOf(entry: MountEntry, all = listLoopDevices()): LoopDevice | undefined {
  return all.find((each) => isMountedFrom(entry, each));
}

async function unmountFailure(
  { mountpoint }: MountEntry,
  result: CommandResult,
): Promise<DiskError> {
  const users = describeProcesses(findProcesses(mountpoint));
  if (users === '' && !result.complaint.includes('busy')) {
    return commandError(`cannot unmount ${mountpoint}`, 'umount', result);
  }
  const who = users === '' ? 'somebody' : users;
  return new DiskError('busy', `${mountpoint} is in use by ${who}`, {
    errno: 'EBUSY',
    hint: 'end those programs, or leave the directory, and try again',
  });
}
