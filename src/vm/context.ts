/** What the operations on VMs work with: one of each per store. */
import { DiskError } from '../common/errors.js';
import type { Engine } from '../engine/engine.js';
import type { Chains } from './chains.js';
import type { MacPool } from './hardware.js';
import type { Exposed, HeldOpens, VmHooks } from './hooks.js';
import type { StoreRoom } from './room.js';
import type { BaseRecords } from './store/base-records.js';
import type { DeltaPins } from './store/delta-pins.js';
import type { MemoryFiles } from './store/memory-files.js';
import type { VmEntry } from './store/vm-catalog.js';
import type { VmStore } from './store/vm-store.js';

export interface VmContext {
  readonly store: VmStore;
  readonly engine: Engine;
  readonly hooks: VmHooks;
  readonly bases: BaseRecords;
  readonly memory: MemoryFiles;
  readonly chains: Chains;
  readonly pins: DeltaPins;
  readonly macs: MacPool;
  readonly room: StoreRoom;
  /** Says that something may have become garbage. */
  readonly onGarbage: () => void;
}

/** Progress of a long operation, and how it is cancelled. */
export interface Work {
  readonly signal?: AbortSignal;
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
}

/**
 * Runs `task` as the only one that changes this VM.
 * @throws DiskError `not-found` or `damaged` when there is no such VM (any more).
 */
export async function withVm<T>(
  { store }: VmContext,
  name: string,
  task: (entry: VmEntry) => Promise<T>,
): Promise<T> {
  const entry = store.catalog.get(name);
  return entry.mutex.run(async () => {
    // While waiting it may have been renamed, deleted, or replaced by another one.
    if (store.catalog.get(name) === entry) return task(entry);
    throw new DiskError('not-found', `VM "${name}" was replaced by another one in the meantime`, {
      hint: 'try again if you mean the new one',
    });
  });
}

/**
 * Runs `task` while nobody else can make a VM of that name.
 * @throws DiskError `exists`.
 */
export async function withNewName<T>(
  { store }: VmContext,
  name: string,
  task: () => Promise<T>,
): Promise<T> {
  store.catalog.reserve(name);
  try {
    return await task();
  } finally {
    store.catalog.release(name);
  }
}

/** @throws DiskError `busy` naming who has these files open and how to make it let go. */
export async function refuseWhileHeld(
  { hooks }: VmContext,
  exposed: Exposed,
  what: string,
  isMatter: (holder: { readonly byPath: boolean }) => boolean = () => true,
): Promise<void> {
  const holder = (await hooks.holders(exposed)).find(isMatter);
  if (holder === undefined) return;
  throw new DiskError('busy', `cannot ${what}: ${holder.what}`, {
    errno: 'EBUSY',
    hint: holder.remedy ?? 'close it there first',
  });
}

/**
 * Looked at again while nobody else can open the files: whoever did so since the first look would
 * read old and new side by side, or go on with what is gone. @throws DiskError `busy`.
 */
export async function refuseWhileOpen(
  context: VmContext,
  exposed: Exposed,
  held: HeldOpens,
  what: string,
): Promise<void> {
  if ((await held.stillOpen()) === 0) return;
  await refuseWhileHeld(context, exposed, what);
  throw openedJustNow(what);
}

/** Nobody is found by the names that the files have now. */
function openedJustNow(what: string): DiskError {
  const since = 'was opened just now, or under a former name';
  return new DiskError('busy', `cannot ${what}: a disk of it ${since}`, {
    errno: 'EBUSY',
    hint: 'close it there first, and try again',
  });
}

/** Files of a VM that are to change or go, and for what. */
export interface Unused {
  readonly exposed: Exposed;
  readonly nodes: readonly number[];
  /** For the message when somebody uses them. */
  readonly what: string;
}

/**
 * Runs `change` while nobody has the files open, nor can open them: who tries sees what is there
 * afterwards. Under the entry's mutex. @throws DiskError `busy`.
 */
export async function whileUnused<T>(
  context: VmContext,
  { number }: VmEntry,
  { exposed, nodes, what }: Unused,
  change: () => Promise<T>,
): Promise<T> {
  await refuseWhileHeld(context, exposed, what);
  const held = context.hooks.holdOpens(number, nodes);
  try {
    await refuseWhileOpen(context, exposed, held, what);
    return await change();
  } finally {
    held.release();
  }
}

/** `whileUnused` for who has asked already who uses the files, or must not ask. */
export async function whileClosed<T>(
  context: VmContext,
  { number }: VmEntry,
  { nodes, what }: Omit<Unused, 'exposed'>,
  change: () => Promise<T>,
): Promise<T> {
  const held = context.hooks.holdOpens(number, nodes);
  try {
    if ((await held.stillOpen()) > 0) throw openedJustNow(what);
    return await change();
  } finally {
    held.release();
  }
}

/**
 * For who has looked for users by the names of the files: those that had a disk open before the VM
 * got its name are not found by it. Under the entry's mutex. @throws DiskError `busy`.
 */
export async function refuseUnnamedUsers(
  context: VmContext,
  vm: string,
  what: string,
): Promise<void> {
  const entry = context.store.catalog.get(vm);
  const nodes = context.store.loadEntry(entry).disks.map(({ node }) => node);
  await whileClosed(context, entry, { nodes, what }, async () => {});
}
