/**
 * The methods of the control protocol that bring disks into the host: loop devices and mounted file
 * systems.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { DiskError } from '../../common/errors.js';
import { shellWord } from '../../common/shell-word.js';
import type { AttachView, Handlers, Params } from '../../control/protocol.js';
import { endLoopDevice } from '../../host/end-loop-device.js';
import {
  flushLoopDevice,
  isOn,
  type LoopDevice,
  listLoopDevices,
  makeLoopDevice,
} from '../../host/loop-devices.js';
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
import type { DiskUsers, LoopUse } from './disk-users.js';
import { mount, unmount } from './mount-handlers.js';
import { describeProcesses, findProcesses } from './processes.js';
import { resolveTarget } from './targets.js';

/** How often, and how long after, who uses a device is looked at once more, milliseconds. */
const MOST_LOOKS = 6;
const LOOK_AGAIN_MS = 100;

export type AttachMethod = 'attach' | 'detach' | 'mount' | 'unmount';

export function attachHandlers(sources: AttachSources): Pick<Handlers, AttachMethod> {
  return {
    attach: (params) => attach(sources, params),
    detach: async (params) => ({ devices: await detach(sources, params) }),
    mount: (params) => mount(sources, params),
    async unmount({ directory }) {
      await unmount(sources, directory);
      return {};
    },
  };
}

/** Attaching a disk again in the same way answers the device that it has. */
async function attach(sources: AttachSources, params: Params<'attach'>): Promise<AttachView> {
  const { readOnly: wanted = false, directIo = false, ...named } = params;
  refuseWithoutRoot('attach a disk');
  return sources.service.exclusively(named.vm, async () => {
    const target = resolveTarget(sources, named);
    const readOnly = wanted || target.readOnly;
    if (!readOnly) refuseBesideGuest(sources, target);
    const known = wholeDevice(target.path);
    if (known !== undefined) {
      if (known.readOnly === readOnly && !known.autoclear) {
        return { device: known.device, path: target.path, readOnly, already: true };
      }
      throw alreadyAttached(target, known);
    }
    await refuseUnopenable(sources, target);
    const device = await makeLoopDevice(target.path, { readOnly, directIo });
    return { device, path: target.path, readOnly };
  });
}

async function detach(sources: AttachSources, params: Params<'detach'>): Promise<string[]> {
  const { service, users } = sources;
  const { device, target } = params;
  refuseWithoutRoot('detach a disk');
  if (device !== undefined) {
    const loop = ownDevice(sources, device);
    return exclusivelyFor(sources, loop.file, () => detachAll(sources, [useOf(users, loop)]));
  }
  if (target === undefined) throw new DiskError('usage', 'say what to detach: VM or DEVICE');
  return service.exclusively(target.vm, async () => {
    const { path } = resolveTarget(sources, target);
    const uses = users.loopUsesOf((file) => file === path).filter(({ loop }) => loop.file === path);
    if (uses.length === 0) {
      throw new DiskError('not-found', `${path} is not attached`, {
        hint: 'loop devices and their files: losetup --list',
      });
    }
    return detachAll(sources, uses);
  });
}

/** @throws DiskError `not-found` for a device that is none of ours. */
function ownDevice({ mountpoint }: AttachSources, device: string): LoopDevice {
  const loop = listLoopDevices().find((each) => each.device === device);
  if (loop?.file.startsWith(`${mountpoint}/`)) return loop;
  throw new DiskError('not-found', `no disk of layerdisk is attached as ${device}`, {
    hint: 'loop devices and their files: losetup --list',
  });
}

function useOf(users: DiskUsers, loop: LoopDevice): LoopUse {
  const found = users
    .loopUsesOf((file) => file === loop.file)
    .find((each) => each.loop.device === loop.device);
  return found ?? { loop, mounts: [] };
}

/** Detaches all or, when somebody holds one of them, none. */
async function detachAll(sources: AttachSources, uses: readonly LoopUse[]): Promise<string[]> {
  for (const use of uses) await refuseWhileUsed(use);
  for (const { loop } of uses) {
    await flushLoopDevice(loop);
    await endLoopDevice(loop);
    await flushDisk(sources, loop.file);
  }
  return uses.map(({ loop }) => loop.device);
}

/** @throws DiskError `busy` naming the mount point, device or process. */
async function refuseWhileUsed({ loop, mounts }: LoopUse): Promise<void> {
  const { device } = loop;
  const [mounted] = mounts;
  if (mounted !== undefined) {
    const users = describeProcesses(findProcesses(mounted.mountpoint));
    const who = users === '' ? '' : `, in use by ${users}`;
    throw new DiskError('busy', `${device} is mounted at ${mounted.mountpoint}${who}`, {
      errno: 'EBUSY',
      hint: `layerdisk unmount ${shellWord(mounted.mountpoint)}`,
    });
  }
  const upper = listLoopDevices().find((each) => isOn(each, loop));
  if (upper !== undefined) {
    throw new DiskError('busy', `${upper.device} stands on ${device}`, {
      errno: 'EBUSY',
      hint: `end that one first: unmount it, or losetup -d ${upper.device}`,
    });
  }
  const users = await lastingUsers(device);
  if (users !== '') {
    throw new DiskError('busy', `${device} is in use by ${users}`, {
      errno: 'EBUSY',
      hint: 'end those programs first',
    });
  }
}

/** Without those who only look at it, as `losetup --list` and udev do: they are gone at once. */
async function lastingUsers(device: string): Promise<string> {
  for (let looks = 1; ; looks += 1) {
    const users = describeProcesses(findProcesses(device));
    if (users === '' || looks === MOST_LOOKS) return users;
    await delay(LOOK_AGAIN_MS);
  }
}
