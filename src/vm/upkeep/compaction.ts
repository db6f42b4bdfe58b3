/** Compaction: a VM gives back the space that it takes and nobody needs. */
import { DiskError } from '../../common/errors.js';
import type { DeltaId } from '../../engine/delta-id.js';
import type { Compacted } from '../../engine/engine.js';
import { type VmContext, type Work, withVm } from '../context.js';
import { sealLocked } from '../snapshots.js';
import { labelledDeltas } from '../store/manifest.js';
import type { GarbageCollector } from './garbage.js';

export interface CompactOutcome {
  /** Bytes of the host that the files of the VM took, and take now: its snapshots', too. */
  readonly storedBefore: number;
  readonly storedSize: number;
  readonly bytesRead: number;
  /** What stays as it is, and why: one line each. */
  readonly left: readonly string[];
}

/**
 * Gives back what later writes hid below heads and deleted snapshots, then the space of zeroes that
 * were written. Disks may be in use: what they hold now is sealed first, and only sealed deltas are
 * looked at. No disk and no snapshot shows another byte afterwards, wherever this was broken off.
 * @throws DiskError `not-found`, `interrupted`, `not-supported` with an engine that cannot;
 * `failed` when the host refuses.
 */
export async function compactVm(
  context: VmContext,
  garbage: GarbageCollector,
  vm: string,
  work: Work,
): Promise<CompactOutcome> {
  const { health } = context.engine;
  if (health === undefined) throw new DiskError('not-supported', 'this engine cannot compact');
  const left: string[] = [];
  const storedBefore = await sealWritten(context, vm, left);
  await giveBackHidden(garbage, left);
  const { bytesRead, problems } = await withSealed(context, vm, (deltas) =>
    health.compact(deltas, work),
  );
  left.push(...problems);
  const storedSize = await withVm(context, vm, async (entry) => storedBytes(context, entry.name));
  return { storedBefore, storedSize, bytesRead, left };
}

/** Puts new heads on those that were written to. @returns bytes that the VM takes before. */
function sealWritten(context: VmContext, vm: string, left: string[]): Promise<number> {
  const { engine, room, store } = context;
  return withVm(context, vm, async (entry) => {
    const { disks } = store.loadEntry(entry);
    const stored = storedBytes(context, entry.name);
    const moving = new Set<DeltaId>();
    for (const { name, head } of disks) {
      if (engine.deltas.isUntouched(head)) continue;
      if (engine.deltas.describe(head).allocation === 'static') {
        left.push(`${vm}/${name} is static: it keeps its space`);
      } else if (room.isUrgent) {
        // On a new head every write needs new space, which there is not: a guest would stop.
        left.push(`what ${vm}/${name} holds now, as the store is full`);
      } else {
        moving.add(head);
      }
    }
    if (moving.size > 0) {
      const moves = ({ head }: { readonly head: DeltaId }) => moving.has(head);
      await sealLocked(context, entry, { what: `compact "${vm}"`, fromReserve: true, moves });
    }
    return stored;
  });
}

async function giveBackHidden(garbage: GarbageCollector, left: string[]): Promise<void> {
  try {
    await garbage.collectIntoTrash();
  } catch (error) {
    // Damage elsewhere hides what is in use; zeroes are zeroes all the same.
    if (!(error instanceof DiskError) || error.code !== 'damaged') throw error;
    left.push(error.message);
  }
}

/** Runs `task` on the sealed deltas of a VM while they cannot be removed. */
async function withSealed(
  context: VmContext,
  vm: string,
  task: (deltas: readonly DeltaId[]) => Promise<Compacted>,
): Promise<Compacted> {
  const { pins, store } = context;
  const deltas = await withVm(context, vm, async (entry) => {
    const heads = new Set(store.loadEntry(entry).disks.map(({ head }) => head));
    const sealed = deltasOf(context, entry.name).filter((id) => !heads.has(id));
    for (const id of sealed) pins.deltas.pin(id);
    return sealed;
  });
  try {
    return await task(deltas);
  } finally {
    for (const id of deltas) pins.deltas.unpin(id);
  }
}

/** All deltas that a VM stands on, its snapshots included. */
function deltasOf({ chains, store }: VmContext, vm: string): DeltaId[] {
  const reached = new Set<DeltaId>();
  chains.reach(labelledDeltas(store.load(vm)), reached, new Set());
  return [...reached];
}

function storedBytes(context: VmContext, vm: string): number {
  const { deltas } = context.engine;
  return deltasOf(context, vm).reduce((sum, id) => sum + deltas.describe(id).storedSize, 0);
}
