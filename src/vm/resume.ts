/**
 * The memory that a VM waits with after a snapshot was restored that has one: the next run goes on
 * with it, once.
 *
 * INVARIANT: memory is only given out with the hardware and the contents of disks that it belongs
 * to. What it belongs to is written down as sealed deltas; that nothing was written since is seen
 * from the deltas on top of those, which have no record, and show as many bytes. A write appends
 * its record before it is acknowledged, so no order of crashes hides one.
 */
import { isDeepStrictEqual } from 'node:util';
import { DiskError } from '../common/errors.js';
import { type VmContext, withVm } from './context.js';
import {
  hardwareOf,
  type Manifest,
  type MemoryState,
  type ResumeRecord,
  type SnapshotRecord,
} from './store/manifest.js';

/** What a restored snapshot leaves to the next run; undefined where it has no memory. */
export function resumeOf(snapshot: SnapshotRecord): ResumeRecord | undefined {
  const { name, memoryState, disks } = snapshot;
  if (memoryState === undefined) return undefined;
  return {
    snapshot: name,
    memoryState,
    ...hardwareOf(snapshot),
    disks: disks.map(({ name: disk, kind, delta }) => ({
      ...{ name: disk, delta },
      ...(kind === undefined ? {} : { kind }),
    })),
  };
}

/** Memory that a guest can be started with. */
export interface UsableMemory {
  /** Absolute. */
  readonly path: string;
  readonly snapshot: string;
  readonly state: MemoryState;
}

/**
 * The memory that `vm` goes on with when it is started now; undefined when it has none.
 * @throws DiskError `exists` when what it belongs to was changed since, `damaged`.
 */
export async function usableMemory(
  { memory, chains }: VmContext,
  vm: string,
  manifest: Manifest,
): Promise<UsableMemory | undefined> {
  const { resume } = manifest;
  if (resume === undefined) return undefined;
  const refuse = (why: string) => {
    const what = `cannot go on with the memory of "${vm}@${resume.snapshot}": ${why}`;
    const again = `layerdisk snapshot restore ${vm}@${resume.snapshot}`;
    return new DiskError('exists', what, {
      hint: `restore it again (${again}), or start the VM without: run --discard-memory`,
    });
  };
  if (!isDeepStrictEqual(hardwareOf(resume), hardwareOf(manifest))) {
    throw refuse('the hardware was changed');
  }
  if (resume.disks.length !== manifest.disks.length) throw refuse('it has other disks now');
  for (const { name, kind, size, head } of manifest.disks) {
    const bottom = resume.disks.find((disk) => disk.name === name);
    if (bottom === undefined) throw refuse('it has other disks now');
    if (bottom.kind !== kind) throw refuse(`disk "${name}" is of another kind now`);
    // Another size alone leaves no record.
    if (chains.sizeOf(bottom.delta) !== size) throw refuse(`disk "${name}" has another size now`);
    if (!chains.isUntouchedSince(head, bottom.delta))
      throw refuse(`disk "${name}" was written to since`);
  }
  await memory.examine(resume.memoryState, false);
  return {
    path: memory.path(resume.memoryState.id),
    snapshot: resume.snapshot,
    state: resume.memoryState,
  };
}

/**
 * The guest has it now, and is about to go: nobody else gets it again.
 * @throws DiskError `exists` when it must not go, or has no memory to go on with.
 */
export async function useMemory(context: VmContext, vm: string): Promise<void> {
  await withVm(context, vm, async (entry) => {
    const before = context.store.loadEntry(entry);
    const usable = await usableMemory(context, vm, before);
    if (usable === undefined) {
      throw new DiskError('exists', `VM "${vm}" no longer waits with a memory`, {
        hint: 'somebody discarded it, or restored another snapshot: start it again',
      });
    }
    await context.store.change(entry, withoutMemory(before));
  });
  context.onGarbage();
}

/** Lets the next run start cold. One that has no memory is left as it is. */
export async function discardMemory(context: VmContext, vm: string): Promise<void> {
  await withVm(context, vm, async (entry) => {
    const before = context.store.loadEntry(entry);
    if (before.resume !== undefined) await context.store.change(entry, withoutMemory(before));
  });
  context.onGarbage();
}

export function withoutMemory({ resume: _, ...rest }: Manifest): Manifest {
  return rest;
}
