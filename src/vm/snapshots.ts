/** Snapshots: take, rename, delete. No data moves in any of them. Restoring: `restore.ts`. */
import { randomUUID } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { DiskError } from '../common/errors.js';
import type { HeadSwitch } from '../engine/engine.js';
import { refuseWhileHeld, type VmContext, type Work, whileUnused, withVm } from './context.js';
import { isInSnapshots, kindPart, refuseMemoryBeside } from './disk-kinds.js';
import { goneSnapshot } from './exposure.js';
import type { Flushed } from './hooks.js';
import { Preparation } from './preparation.js';
import { refuseWhileWritesWait, requireRoom } from './room.js';
import {
  checkSnapshotNameFree,
  findSnapshot,
  withoutSnapshot,
  withRenamedSnapshot,
  withSnapshot,
} from './snapshot-tree.js';
import {
  type DiskRecord,
  hardwareOf,
  type Manifest,
  type MemoryState,
  NODE,
  type SnapshotRecord,
} from './store/manifest.js';
import type { NewMemoryFile } from './store/memory-files.js';
import { checkName } from './store/names.js';
import type { VmEntry } from './store/vm-catalog.js';

const LONGEST_MESSAGE = 4096;

export interface SnapshotRequest {
  readonly name: string;
  readonly message?: string;
  /** With the memory and the devices of the guest, which must run. */
  readonly memory?: boolean;
}

/** A snapshot that is taken together with other changes: the manifest that has it. */
interface Taken {
  readonly manifest: Manifest;
  readonly record: SnapshotRecord;
}

/**
 * Takes a snapshot of all disks and the hardware at one instant: today's heads are sealed under its
 * name, and an empty delta on each of them is the new head.
 * @param work of saving memory.
 */
export async function takeSnapshot(
  context: VmContext,
  vm: string,
  request: SnapshotRequest,
  work: Work = {},
): Promise<SnapshotRecord> {
  checkSnapshotRequest(request);
  const taken = await withVm(context, vm, (entry) => takeLocked(context, entry, request, work));
  context.hooks.namesChanged(vm);
  return taken;
}

/** `takeSnapshot` for who holds the VM's mutex and has checked the request. */
export async function takeLocked(
  context: VmContext,
  entry: VmEntry,
  request: SnapshotRequest,
  work: Work = {},
): Promise<SnapshotRecord> {
  const before = context.store.loadEntry(entry);
  checkSnapshotNameFree(entry.name, before, request.name);
  if (request.memory === true) refuseMemoryBeside(entry.name, before.disks);
  const describe = (manifest: Manifest, instant: Instant) => label(manifest, request, instant);
  const memory = request.memory === true ? { memory: work } : {};
  const what = `take "${entry.name}@${request.name}"`;
  return sealAs(context, entry, describe, { what, moves: isInSnapshots, ...memory });
}

/**
 * Seals the present state without giving it a name: new empty heads on top of today's.
 * @param why what for, and whether that makes room in the end: for who looks at the room there is;
 * which disks, by default all.
 * @returns the manifest before: its heads hold the instant and are read-only from now on.
 */
export async function sealLocked(
  context: VmContext,
  entry: VmEntry,
  why: Pick<Sealing, 'what' | 'fromReserve'> & Partial<Pick<Sealing, 'moves'>>,
): Promise<Manifest> {
  const before = context.store.loadEntry(entry);
  const describe = (manifest: Manifest) => ({ manifest, record: undefined });
  await sealAs(context, entry, describe, { moves: () => true, ...why });
  return before;
}

/** What is known of the instant of a snapshot besides its disks. */
interface Instant {
  readonly consistency: string;
  readonly memoryState?: MemoryState;
}

const CONSISTENT: Instant = { consistency: 'consistent' };

interface Sealing {
  /** For the message when there is no room for it. */
  readonly what: string;
  /**
   * Whether the reserve may be used. Afterwards every write needs new space, which a full store
   * refuses: a snapshot would stop a guest that could have gone on in place.
   */
  readonly fromReserve?: boolean;
  /** The disks that get a new head. */
  readonly moves: (disk: DiskRecord) => boolean;
  /** The work of saving the guest's memory, where it is to be saved. */
  readonly memory?: Work;
}

/**
 * Puts new empty heads on today's at one instant, in a manifest that says what the sealed ones are.
 */
async function sealAs<T>(
  context: VmContext,
  entry: VmEntry,
  describe: (before: Manifest, instant: Instant) => { manifest: Manifest; record: T },
  { what, fromReserve = false, moves, memory }: Sealing,
): Promise<T> {
  const { store, hooks, room } = context;
  const before = store.loadEntry(entry);
  checkRoomOnHeads(context, entry.name, before);
  refuseWhileWritesWait(room, what);
  requireRoom(room, { what, deltas: before.disks.filter(moves).length, fromReserve });
  return Preparation.run(context, async (preparation) => {
    const { disks, switches } = prepareHeads(preparation, before.disks, moves);
    const file = memory === undefined ? undefined : preparation.nameMemory();
    const write = (instant: Instant) => {
      const { manifest, record } = describe(before, instant);
      return { record, pending: store.prepareChange(entry, { ...manifest, disks }) };
    };
    // Written while the disks are flushed, as it will be if nothing keeps them from being so.
    const guess = file === undefined ? write(CONSISTENT) : undefined;
    if (guess !== undefined) preparation.expect(guess.pending);
    const flushed = await hooks.flushExposed(
      entry.name,
      file && { file, hardware: hardwareOf(before), disks: namesOf(before), work: memory ?? {} },
    );
    let released: Promise<void> | undefined;
    const release = () => (released ??= flushed.release());
    try {
      const instant = await instantOf(context, flushed, file);
      const isGuessed = isDeepStrictEqual(instant, CONSISTENT);
      const { record, pending } = (isGuessed ? guess : undefined) ?? write(instant);
      // What stood still goes on when the heads have moved; how that ends is waited for below.
      await preparation.commitHeads(switches, await pending, () => {
        release().catch(() => undefined);
      });
      return record;
    } finally {
      await release();
    }
  });
}

function namesOf({ disks }: Manifest): string[] {
  return disks.map(({ name }) => name);
}

/** Makes what was saved durable: a snapshot with memory has all of it, or is none. */
async function instantOf(
  { memory }: VmContext,
  { consistency, guest }: Flushed,
  file: NewMemoryFile | undefined,
): Promise<Instant> {
  if (file === undefined || guest === undefined) return { consistency };
  const summed = await memory.seal(file);
  return { consistency, memoryState: { id: file.id, ...summed, setup: guest } };
}

/** Takes back a snapshot that was only a step of something that failed. */
export async function forgetSnapshot(
  { store }: VmContext,
  entry: VmEntry,
  { id }: SnapshotRecord,
): Promise<void> {
  try {
    const before = store.loadEntry(entry);
    // The failure came after the commit: what was done stands, and the snapshot with it.
    if (before.current !== id) return;
    await store.change(entry, withoutSnapshot(before, id));
  } catch {
    // The failure itself is the one to report; a snapshot too many does no harm and can be deleted.
  }
}

/** Forgets a snapshot. What stands on it, clones included, stays as it is. */
export async function deleteSnapshot(context: VmContext, vm: string, name: string): Promise<void> {
  await withVm(context, vm, async (entry) => {
    const before = context.store.loadEntry(entry);
    const { id, disks } = findSnapshot(vm, before, name);
    const exposed = { vm, part: 'snapshot', snapshot: name } as const;
    const nodes = disks.map(({ node }) => node);
    const unused = { exposed, nodes, what: `delete "${vm}@${name}"` };
    await whileUnused(context, entry, unused, () =>
      context.store.change(entry, withoutSnapshot(before, id)),
    );
    context.hooks.namesChanged(vm, [goneSnapshot(entry, name)]);
  });
  context.onGarbage();
}

export async function renameSnapshot(
  context: VmContext,
  vm: string,
  name: string,
  newName: string,
): Promise<SnapshotRecord> {
  checkName('snapshot', newName);
  return withVm(context, vm, async (entry) => {
    const before = context.store.loadEntry(entry);
    const found = findSnapshot(vm, before, name);
    checkSnapshotNameFree(vm, before, newName);
    const exposed = { vm, part: 'snapshot', snapshot: name } as const;
    await refuseWhileHeld(context, exposed, `rename "${vm}@${name}"`, (holder) => holder.byPath);
    await context.store.change(entry, withRenamedSnapshot(before, found.id, newName));
    context.hooks.namesChanged(vm, [goneSnapshot(entry, name)]);
    return { ...found, name: newName };
  });
}

function checkSnapshotRequest({ name, message }: SnapshotRequest): void {
  checkName('snapshot', name);
  if (message !== undefined && message.length > LONGEST_MESSAGE) {
    throw new DiskError('usage', `the message has ${message.length} characters`, {
      hint: `at most ${LONGEST_MESSAGE} are kept`,
    });
  }
}

/**
 * Puts the heads of a manifest under a snapshot's name; the heads themselves are still the old
 * ones.
 */
function label(before: Manifest, request: SnapshotRequest, instant: Instant): Taken {
  let { nextNode } = before;
  const record: SnapshotRecord = {
    id: randomUUID(),
    name: request.name,
    node: nextNode++,
    created: new Date().toISOString(),
    ...(request.message === undefined ? {} : { message: request.message }),
    parent: before.current,
    ...instant,
    ...hardwareOf(before),
    disks: before.disks.filter(isInSnapshots).map((disk) => ({
      name: disk.name,
      node: nextNode++,
      size: disk.size,
      allocation: disk.allocation,
      ...kindPart(disk),
      delta: disk.head,
      headNode: disk.node,
      ...serialPart(before, disk.name),
    })),
  };
  return { manifest: { ...withSnapshot(before, record), nextNode }, record };
}

function serialPart({ serials }: Manifest, disk: string): { serial?: string } {
  const serial = serials?.[disk];
  return serial === undefined ? {} : { serial };
}

function prepareHeads(
  preparation: Preparation,
  disks: readonly DiskRecord[],
  moves: (disk: DiskRecord) => boolean,
) {
  const moved: DiskRecord[] = [];
  const switches: HeadSwitch[] = [];
  for (const disk of disks) {
    if (!moves(disk)) {
      moved.push(disk);
      continue;
    }
    const head = preparation.beginDelta({
      below: { kind: 'delta', id: disk.head },
      virtualSize: disk.size,
      allocation: 'dynamic',
    });
    moved.push({ ...disk, head });
    switches.push({ from: disk.head, to: head });
  }
  return { disks: moved, switches };
}

function checkRoomOnHeads({ chains }: VmContext, vm: string, manifest: Manifest): void {
  for (const disk of manifest.disks) chains.checkRoom(disk.head, `${vm}/${disk.name}`);
  if (manifest.nextNode > 0xffff_ffff - NODE.first - manifest.disks.length) {
    throw new DiskError('not-supported', `VM "${vm}" has used up its inode numbers`, {
      hint: 'go on with a full clone of it',
    });
  }
}
