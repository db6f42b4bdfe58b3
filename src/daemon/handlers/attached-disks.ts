/**
 * What attaching and mounting have in common: disks, the loop devices on them, and locking both.
 */
import { dirname } from 'node:path';
import { DiskError } from '../../common/errors.js';
import type { DeltaId } from '../../engine/delta-id.js';
import type { LocalEngine } from '../../engine/local-engine.js';
import { type LoopDevice, listLoopDevices } from '../../host/loop-devices.js';
import type { VmService } from '../../vm/vm-service.js';
import type { Guests } from '../guests.js';
import type { DiskUsers } from './disk-users.js';
import type { ResolvedTarget } from './targets.js';

export interface AttachSources {
  readonly service: VmService;
  /** Absolute, without symbolic links. */
  readonly mountpoint: string;
  /** Absolute. */
  readonly store: string;
  readonly users: DiskUsers;
  readonly guests: Guests;
  /** Makes what was written to a disk durable. */
  readonly flush: (top: DeltaId) => Promise<void>;
  readonly engine: Pick<LocalEngine, 'tryOpen'>;
}

/** The loop device on a whole file. */
export function wholeDevice(path: string): LoopDevice | undefined {
  return listLoopDevices().find(
    (each) => each.file === path && each.offset === 0 && each.sizeLimit === 0,
  );
}

export function alreadyAttached(
  target: ResolvedTarget,
  { device, readOnly, autoclear }: LoopDevice,
) {
  const how = autoclear ? 'in use by a mount' : readOnly ? 'attached read-only' : 'attached';
  return new DiskError('busy', `${target.path} is already ${how}, as ${device}`, {
    errno: 'EBUSY',
    hint: autoclear ? 'unmount it first: layerdisk unmount DIR' : `layerdisk detach ${device}`,
  });
}

/**
 * Runs `task` as the only change of the VM that an exposed file belongs to, if there still is one.
 */
export async function exclusivelyFor<T>(
  { service, mountpoint }: AttachSources,
  file: string,
  task: () => Promise<T>,
): Promise<T> {
  const [vm = ''] = file.slice(mountpoint.length + 1).split('/');
  return service.has(vm) ? service.exclusively(vm, task) : task();
}

/**
 * Makes durable what was written to the disk behind an exposed file; snapshots have nothing to
 * write.
 */
export async function flushDisk(
  { service, mountpoint, flush }: AttachSources,
  file: string,
): Promise<void> {
  const [vm = '', name = '', ...rest] = file.slice(mountpoint.length + 1).split('/');
  if (rest.length > 0 || dirname(file) !== `${mountpoint}/${vm}`) return;
  const disk = service.exposure.find(vm)?.disks.find((each) => each.fileName === name);
  if (disk !== undefined) await flush(disk.top);
}

/** @throws DiskError `busy`: two writers that know nothing of each other ruin a file system. */
export function refuseBesideGuest({ guests }: AttachSources, target: ResolvedTarget): void {
  const [guest] = target.snapshot === undefined ? guests.holders(target.vm) : [];
  if (guest === undefined) return;
  throw new DiskError('busy', `cannot attach ${target.path} for writing: ${guest.what}`, {
    errno: 'EBUSY',
    hint: 'use --read-only, or a snapshot: layerdisk snapshot take VM@NAME',
  });
}

/**
 * The host's programs hear EIO of a disk that cannot be opened, and take it for an empty one.
 * @throws DiskError saying why it cannot.
 */
export async function refuseUnopenable(
  { engine }: Pick<AttachSources, 'engine'>,
  { top, snapshot }: Pick<ResolvedTarget, 'top' | 'snapshot'>,
): Promise<void> {
  await engine.tryOpen(top, { writable: snapshot === undefined });
}

export function refuseWithoutRoot(what: string): void {
  if (process.geteuid?.() === 0) return;
  throw new DiskError('not-permitted', `only a daemon that runs as root can ${what}`, {
    hint: 'give the raw file itself to programs that can use it: layerdisk path VM',
  });
}
