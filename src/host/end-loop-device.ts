/** Ending loop devices, and who is in the way. Linux only. */
import { setTimeout as delay } from 'node:timers/promises';
import { DiskError } from '../common/errors.js';
import { shellWord } from '../common/shell-word.js';
import { commandError, runCommand } from './host-command.js';
import { isThere, type LoopDevice } from './loop-devices.js';
import { findMountElsewhere } from './mounts-elsewhere.js';

/** How long the kernel is given to take a loop device down. */
const RELEASE_TIMEOUT_MS = 10_000;
const RELEASE_POLL_MS = 10;

/**
 * Ends a loop device that nobody uses, and waits until it is free.
 * @throws DiskError `busy` when somebody turned up in between.
 */
export async function endLoopDevice(loop: LoopDevice): Promise<void> {
  const result = await runCommand('losetup', ['--detach', loop.device]);
  if (result.code !== 0 && isThere(loop)) {
    throw commandError(`cannot detach ${loop.device}`, 'losetup', result);
  }
  await waitUntilGone(loop);
}

/**
 * Waits for the end of a loop device that was told to end, or that goes by itself.
 * @throws DiskError `busy`.
 */
export async function waitUntilGone(loop: LoopDevice): Promise<void> {
  const deadline = performance.now() + RELEASE_TIMEOUT_MS;
  while (isThere(loop)) {
    if (performance.now() > deadline) throw stillInUse(loop);
    await delay(RELEASE_POLL_MS);
  }
}

function stillInUse(loop: LoopDevice): DiskError {
  const { device } = loop;
  const mount = findMountElsewhere(loop);
  if (mount === undefined) {
    return new DiskError('busy', `${device} is still in use`, {
      errno: 'EBUSY',
      hint: `see who: fuser -v ${device}; it goes by itself after its last user`,
    });
  }
  const { pid, name, mountpoint } = mount;
  const where = `${name} (pid ${pid}), which has mounts of its own, at ${mountpoint}`;
  return new DiskError('busy', `${device} is still mounted for ${where}`, {
    errno: 'EBUSY',
    hint: `end that program, or: nsenter --mount --target ${pid} umount ${shellWord(mountpoint)}`,
  });
}
