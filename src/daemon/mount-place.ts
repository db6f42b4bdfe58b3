/** Where the raw files must not be shown: over what the daemon itself works with. */
import { realpathSync } from 'node:fs';
import { basename, dirname, join, sep } from 'node:path';
import { DiskError } from '../common/errors.js';
import type { Places } from '../common/places.js';
import { layoutOf } from '../vm/store/store-layout.js';

/**
 * A daemon that opens a file in its own mount waits for itself, and nothing but a kill ends that.
 * @throws DiskError `usage` when the mount would hide the store, parts of it or the socket.
 */
export function refuseHidingMount(places: Places): void {
  const mountpoint = settled(places.mountpoint);
  const { vms, bases, deltas, memory, trash, run } = layoutOf(realOrSettled(places.store));
  const own = [vms, bases, deltas, memory, trash, run];
  if (own.some((folder) => isBelow(mountpoint, folder))) {
    throw refuse(places.mountpoint, `the store ${places.store} keeps its own files there`);
  }
  for (const hidden of ['store', 'socket'] as const) {
    if (!isBelow(realOrSettled(places[hidden]), mountpoint)) continue;
    const why = `a mount there would hide the ${hidden} ${places[hidden]}`;
    throw refuse(places.mountpoint, why);
  }
}

function refuse(mountpoint: string, why: string): DiskError {
  return new DiskError('usage', `${mountpoint}: ${why}`, {
    hint: 'name another folder: --mountpoint DIR',
  });
}

function isBelow(path: string, folder: string): boolean {
  return path === folder || path.startsWith(folder + sep);
}

/** The path with the links above its last name followed: that one may be a mount that is dead. */
function settled(path: string): string {
  const above = dirname(path);
  return above === path ? path : join(realOrSettled(above), basename(path));
}

function realOrSettled(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    // It is not there yet: what is above it may be.
    return settled(path);
  }
}
