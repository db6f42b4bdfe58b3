/** Restoring a snapshot: new heads on what it labels. No data moves. */
import { DiskError } from '../common/errors.js';
import type { HeadSwitch } from '../engine/engine.js';
import { refuseWhileHeld, refuseWhileOpen, type VmContext, withVm } from './context.js';
import { isInSnapshots, kindPart } from './disk-kinds.js';
import { goneDisk } from './exposure.js';
import { Preparation } from './preparation.js';
import { resumeOf, withoutMemory } from './resume.js';
import { requireRoom } from './room.js';
import { checkSnapshotNameFree, findSnapshot, freeSnapshotName } from './snapshot-tree.js';
import { forgetSnapshot, type SnapshotRequest, takeLocked } from './snapshots.js';
import {
  type DiskRecord,
  hardwareOf,
  type Manifest,
  type SnapshotRecord,
} from './store/manifest.js';
import { checkName } from './store/names.js';
import type { VmEntry } from './store/vm-catalog.js';

/** What becomes of the present state when a snapshot is restored: exactly one of the two. */
export interface RestoreRequest {
  readonly snapshot: string;
  /** Keep it as a snapshot; a text names it. */
  readonly saveCurrent?: boolean | string;
  readonly discard?: boolean;
}

/**
 * Brings the disks and the hardware back to a snapshot. Other branches of the tree are not touched.
 * @returns the snapshot, and the one that keeps the state before, when asked for.
 * @throws DiskError `usage` when it isn't said what becomes of the present state, `busy` while
 * disks are in use.
 */
export async function restoreSnapshot(
  context: VmContext,
  vm: string,
  request: RestoreRequest,
): Promise<{ restored: SnapshotRecord; saved: SnapshotRecord | undefined }> {
  const { snapshot: name, saveCurrent = false, discard = false } = request;
  if ((saveCurrent !== false) === discard) {
    const problem = discard ? 'both saveCurrent and discard are' : 'neither is';
    throw new DiskError(
      'usage',
      `restoring "${vm}@${name}": say what becomes of the present state; ${problem} given`,
      {
        hint: 'keep it as a snapshot: --save-current [NAME]; or lose it: --discard',
      },
    );
  }
  if (typeof saveCurrent === 'string') checkName('snapshot', saveCurrent);
  const outcome = await withVm(context, vm, (entry) => restoreLocked(context, entry, request));
  context.onGarbage();
  return outcome;
}

async function restoreLocked(context: VmContext, entry: VmEntry, request: RestoreRequest) {
  const { store, hooks, chains, room } = context;
  const vm = entry.name;
  const tree = store.loadEntry(entry);
  const target = findSnapshot(vm, tree, request.snapshot);
  const saving = nameOfSaved(vm, tree, request);
  const what = `restore "${vm}@${target.name}"`;
  await refuseWhileHeld(context, { vm, part: 'heads' }, what);
  for (const disk of target.disks)
    chains.checkRoom(disk.delta, `${vm}@${target.name}/${disk.name}`);
  // From the reserve: it may be the way to get rid of what fills the store.
  requireRoom(room, { what, deltas: target.disks.length, fromReserve: true });
  const saved = saving === undefined ? undefined : await takeLocked(context, entry, saving);
  // Not before the snapshot: to take it the files are opened.
  const held = hooks.holdOpens(
    entry.number,
    tree.disks.map(({ node }) => node),
  );
  try {
    await refuseWhileOpen(context, { vm, part: 'heads' }, held, what);
    await switchBack(context, entry, target);
  } catch (error) {
    if (saved !== undefined) await forgetSnapshot(context, entry, saved);
    throw error;
  } finally {
    held.release();
  }
  const now = store.loadEntry(entry).disks.map(({ name }) => name);
  const gone = tree.disks.filter(({ name }) => !now.includes(name));
  hooks.namesChanged(
    vm,
    gone.map(({ name }) => goneDisk(entry, name)),
  );
  return { restored: target, saved };
}

/** Moves the heads. */
async function switchBack(
  context: VmContext,
  entry: VmEntry,
  target: SnapshotRecord,
): Promise<void> {
  const { store } = context;
  await Preparation.run(context, async (preparation) => {
    const before = store.loadEntry(entry);
    const { disks, switches, nextNode, serials } = prepareRestore(preparation, before, target);
    const resume = resumeOf(target);
    const after = {
      ...withoutMemory(before),
      ...hardwareOf(target),
      ...{ disks, nextNode, current: target.id },
      ...(Object.keys(serials).length === 0 ? {} : { serials }),
      ...(resume === undefined ? {} : { resume }),
    };
    const place = { vmNumber: entry.number, nodes: disks.map((disk) => disk.node) };
    await preparation.commitContents(switches, await store.prepareChange(entry, after), place);
  });
}

function nameOfSaved(
  vm: string,
  tree: Manifest,
  { snapshot, saveCurrent = false }: RestoreRequest,
): SnapshotRequest | undefined {
  if (saveCurrent === false) return undefined;
  const message = `saved before ${snapshot} was restored`;
  if (saveCurrent === true) return { name: freeSnapshotName(tree, `before-${snapshot}`), message };
  checkSnapshotNameFree(vm, tree, saveCurrent);
  return { name: saveCurrent, message };
}

/**
 * New empty heads on a snapshot's deltas; a disk that exists under the same name keeps its file.
 * Disks that are in no snapshot stay, at the place that they have.
 */
function prepareRestore(
  preparation: Preparation,
  before: Manifest,
  target: SnapshotRecord,
): {
  disks: DiskRecord[];
  switches: HeadSwitch[];
  nextNode: number;
  serials: Record<string, string>;
} {
  let { nextNode } = before;
  const serials = { ...before.serials };
  const disks: DiskRecord[] = [];
  const switches: HeadSwitch[] = [];
  const stays = (disk: DiskRecord) => !isInSnapshots(disk);
  for (const each of target.disks) {
    const { name, size, allocation, delta } = each;
    if (before.disks.some((disk) => disk.name === name && stays(disk))) continue;
    const head = preparation.beginDelta({
      below: { kind: 'delta', id: delta },
      virtualSize: size,
      allocation: 'dynamic',
    });
    const present = before.disks.find((disk) => disk.name === name);
    if (present !== undefined) switches.push({ from: present.head, to: head });
    // One that was removed comes back as what its guest knows.
    const node = present?.node ?? each.headNode ?? nextNode++;
    if (present === undefined && each.serial !== undefined) serials[name] = each.serial;
    disks.push({ name, node, size, allocation, ...kindPart(each), head });
  }
  for (const [index, disk] of before.disks.entries()) {
    if (stays(disk)) disks.splice(index, 0, disk);
  }
  return { disks, switches, nextNode, serials };
}
