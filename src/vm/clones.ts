/** Clones: linked ones share the deltas of a snapshot, full ones are copies that stand alone. */
import { randomUUID } from 'node:crypto';
import { DiskError } from '../common/errors.js';
import type { DeltaId } from '../engine/delta-id.js';
import { type VmContext, type Work, withNewName, withVm } from './context.js';
import { isInSnapshots, kindOf, kindPart, withKind } from './disk-kinds.js';
import { changeHardware, cloneNics, type HardwareRequest, type MacPolicy } from './hardware.js';
import { Preparation } from './preparation.js';
import { requireRoom } from './room.js';
import { findSnapshot, freeSnapshotName } from './snapshot-tree.js';
import { forgetSnapshot, sealLocked, takeLocked } from './snapshots.js';
import {
  type DiskRecord,
  type Hardware,
  type Manifest,
  NODE,
  type OriginRecord,
  type SnapshotRecord,
} from './store/manifest.js';
import { checkName } from './store/names.js';
import type { VmEntry } from './store/vm-catalog.js';

export interface CloneRequest {
  readonly vm: string;
  /** Default: the present state. */
  readonly snapshot?: string;
  readonly name: string;
  readonly mode: 'linked' | 'full';
  readonly mac?: MacPolicy;
  /** By disk: serial numbers that the clone keeps; default: new ones. */
  readonly serials?: Readonly<Record<string, string>>;
  readonly hardware: HardwareRequest;
}

export interface CloneOutcome {
  /** The snapshot that a linked clone of the present state needed and so took. */
  readonly tookSnapshot: string | undefined;
  /** Disks that a linked clone does not have, because no snapshot has them. */
  readonly leftOut: readonly string[];
}

/** A disk as a clone finds it: `top` is sealed. */
interface SourceDisk {
  readonly name: string;
  readonly size: number;
  readonly allocation: DiskRecord['allocation'];
  readonly kind?: NonNullable<DiskRecord['kind']>;
  readonly top: DeltaId;
}

/**
 * Makes a new VM from a snapshot or the present state of another one.
 * @throws DiskError `exists`, `not-found`, `usage`, `interrupted`.
 */
export async function cloneVm(
  context: VmContext,
  request: CloneRequest,
  work: Work,
): Promise<CloneOutcome> {
  checkName('VM', request.name);
  const outcome = await withNewName(context, request.name, () =>
    Preparation.run(context, (preparation) =>
      request.mode === 'linked'
        ? cloneLinked(context, preparation, request)
        : cloneFull(context, preparation, request, work),
    ),
  );
  context.hooks.namesChanged(request.name);
  if (outcome.tookSnapshot !== undefined) context.hooks.namesChanged(request.vm);
  return outcome;
}

/** What a linked clone is made of, as it is at one instant. */
interface LinkedSource {
  readonly hardware: Hardware;
  readonly origin: OriginRecord;
  readonly disks: SnapshotRecord['disks'];
}

/**
 * The source is locked only for a look at its snapshot, whose deltas are pinned meanwhile; one that
 * is taken for the clone goes again if the clone is not made, and so stays locked until then.
 */
async function cloneLinked(
  context: VmContext,
  preparation: Preparation,
  request: CloneRequest,
): Promise<CloneOutcome> {
  const { store } = context;
  const { snapshot } = request;
  if (snapshot === undefined) return cloneLinkedPresent(context, preparation, request);
  const source = await withVm(context, request.vm, async (entry) => {
    const before = store.loadEntry(entry);
    const record = findSnapshot(entry.name, before, snapshot);
    const hardware = cloneHardware(preparation, request, record);
    requireRoomForLinked(context, entry, request, record);
    preparation.pin(...record.disks.map(({ delta }) => delta));
    return linkedSource(context, { entry, before, record }, hardware);
  });
  await makeLinked(context, preparation, request, source);
  return { tookSnapshot: undefined, leftOut: [] };
}

function cloneLinkedPresent(
  context: VmContext,
  preparation: Preparation,
  request: CloneRequest,
): Promise<CloneOutcome> {
  return withVm(context, request.vm, async (entry) => {
    const before = context.store.loadEntry(entry);
    const hardware = cloneHardware(preparation, request, before);
    requireRoomForLinked(context, entry, request, { disks: before.disks.filter(isInSnapshots) });
    const record = await takeLocked(context, entry, {
      name: freeSnapshotName(before, `clone-${request.name}`),
      message: `taken for the linked clone ${request.name}`,
    });
    try {
      const source = linkedSource(context, { entry, before, record }, hardware);
      await makeLinked(context, preparation, request, source);
    } catch (error) {
      if (!preparation.isCommitted) await forgetSnapshot(context, entry, record);
      throw error;
    }
    const leftOut = before.disks.filter((disk) => !isInSnapshots(disk));
    return { tookSnapshot: record.name, leftOut: leftOut.map(({ name }) => name) };
  });
}

/** @throws DiskError `usage` for a clone without disks; `failed`, ENOSPC. */
function requireRoomForLinked(
  { room }: VmContext,
  { name }: VmEntry,
  request: CloneRequest,
  source: { readonly disks: readonly unknown[] },
): void {
  if (source.disks.length === 0) {
    throw new DiskError('usage', `every disk of "${name}" is write-through: none would be cloned`, {
      hint: `copy them: layerdisk clone ${name} ${request.name} --full`,
    });
  }
  const what = `clone "${name}" as "${request.name}"`;
  requireRoom(room, { what, deltas: 2 * source.disks.length });
}

/** @throws DiskError `not-supported` when one more delta is too many. */
function linkedSource(
  { chains }: VmContext,
  { entry, before, record }: { entry: VmEntry; before: Manifest; record: SnapshotRecord },
  hardware: Hardware,
): LinkedSource {
  const { disks } = record;
  for (const disk of disks) {
    chains.checkRoom(disk.delta, `${entry.name}@${record.name}/${disk.name}`);
  }
  return { hardware, origin: originOf(entry, before, record), disks };
}

async function makeLinked(
  context: VmContext,
  preparation: Preparation,
  { name, serials }: CloneRequest,
  source: LinkedSource,
): Promise<void> {
  const disks = source.disks.map((disk, index) => ({
    ...{ name: disk.name, node: NODE.first + index, size: disk.size },
    allocation: disk.allocation,
    head: preparation.beginDelta({
      below: { kind: 'delta', id: disk.delta },
      virtualSize: disk.size,
      allocation: 'dynamic',
    }),
    // An immutable one goes back to what its source goes back to.
    ...kindPart(disk),
  }));
  const { hardware, origin } = source;
  const manifest = await newManifest(context, hardware, disks, origin, serials);
  await preparation.commit(await context.store.prepareNew(name, manifest));
}

/**
 * The source is locked only for the instant that is copied; its sealed deltas are pinned meanwhile.
 */
async function cloneFull(
  context: VmContext,
  preparation: Preparation,
  request: CloneRequest,
  work: Work,
): Promise<CloneOutcome> {
  const { sources, hardware } = await withVm(context, request.vm, async (entry) => {
    const before = context.store.loadEntry(entry);
    const named =
      request.snapshot === undefined
        ? undefined
        : findSnapshot(entry.name, before, request.snapshot);
    const settings = cloneHardware(preparation, request, named ?? before);
    const disks = sourceDisks(named, before);
    preparation.pin(...disks.map((disk) => disk.top));
    const what = `clone "${entry.name}" as "${request.name}"`;
    requireRoom(context.room, { what, deltas: 2 * disks.length });
    if (named === undefined) await sealLocked(context, entry, { what });
    return { sources: disks, hardware: settings };
  });
  const disks = await createDisks(preparation, sources, (disk) => ({
    below: { kind: 'none' },
    virtualSize: disk.size,
    allocation: disk.allocation,
  }));
  await copyDisks(
    context,
    sources.map((disk, index) => ({ source: disk.top, target: disks[index]?.head ?? '' })),
    work,
  );
  const made: DiskRecord[] = [];
  for (const [index, disk] of disks.entries()) {
    // An immutable one goes back to what was copied, from now on.
    made.push(await withKind(preparation, disk, kindOf(sources[index] ?? {})));
  }
  const manifest = await newManifest(context, hardware, made, undefined, request.serials);
  await preparation.commit(await context.store.prepareNew(request.name, manifest));
  return { tookSnapshot: undefined, leftOut: [] };
}

function sourceDisks(named: SnapshotRecord | undefined, present: Manifest): SourceDisk[] {
  const source = ({ name, size, allocation, kind }: Omit<SourceDisk, 'top'>, top: DeltaId) => ({
    ...{ name, size, allocation, top },
    ...(kind === undefined ? {} : { kind }),
  });
  if (named !== undefined) return named.disks.map((disk) => source(disk, disk.delta));
  return present.disks.map((disk) => source(disk, disk.head));
}

/**
 * Copies whole chains, one after the other, and reports them as one piece of work.
 * @throws DiskError `interrupted` when cancelled.
 */
export async function copyDisks(
  { engine, chains, room }: VmContext,
  copies: readonly { readonly source: DeltaId; readonly target: DeltaId }[],
  work: Work,
): Promise<void> {
  const done = copies.map(() => 0);
  // An estimate until the copy itself knows.
  const totals = copies.map(({ source }) => chains.facts(source).bytes);
  const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
  for (const [index, { source, target }] of copies.entries()) {
    checkNotCancelled(work);
    // The copy is refused when there is no room for it: by what is free now.
    room.look();
    await engine.volumes.copy(source, target, {
      ...(work.signal === undefined ? {} : { signal: work.signal }),
      onProgress: ({ doneBytes, totalBytes }) => {
        done[index] = doneBytes;
        totals[index] = totalBytes;
        work.onProgress?.(sum(done), sum(totals));
      },
    });
  }
  checkNotCancelled(work);
}

export function checkNotCancelled({ signal }: Work): void {
  if (signal?.aborted) throw new DiskError('interrupted', 'cancelled; nothing was changed');
}

/** New heads for copies of these disks, with nodes from the first on. */
async function createDisks<T extends Omit<DiskRecord, 'node' | 'head'>>(
  preparation: Preparation,
  sources: readonly T[],
  specOf: (source: T) => Parameters<Preparation['createDelta']>[0],
): Promise<DiskRecord[]> {
  const disks: DiskRecord[] = [];
  for (const [index, source] of sources.entries()) {
    const { name, size, allocation } = source;
    const head = await preparation.createDelta(specOf(source));
    disks.push({ name, node: NODE.first + index, size, allocation, head });
  }
  return disks;
}

/** The manifest of a VM that comes into being; `disks` have the first nodes. */
export async function newManifest(
  { store }: VmContext,
  hardware: Hardware,
  disks: readonly DiskRecord[],
  origin: OriginRecord | undefined,
  serials?: Manifest['serials'],
): Promise<Manifest> {
  return {
    version: 1,
    id: randomUUID(),
    number: await store.takeNumber(),
    created: new Date().toISOString(),
    ...hardware,
    disks,
    snapshots: [],
    current: null,
    nextNode: NODE.first + disks.length,
    ...(origin === undefined ? {} : { origin }),
    ...(serials === undefined ? {} : { serials }),
  };
}

function originOf(entry: VmEntry, source: Manifest, snapshot: SnapshotRecord): OriginRecord {
  return {
    vm: entry.name,
    vmId: entry.id,
    snapshot: snapshot.name,
    snapshotId: snapshot.id,
    lineage: [...(source.origin?.lineage ?? []), entry.id],
  };
}

function cloneHardware(
  preparation: Preparation,
  request: CloneRequest,
  source: Hardware,
): Hardware {
  const nics = cloneNics(source.nics, request.mac ?? 'new', preparation.macs);
  const { vcpus, memory } = source;
  return changeHardware(request.hardware, preparation.macs, { vcpus, memory, nics });
}
