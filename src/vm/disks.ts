/** Disks of a VM that come, go, or get another size. */
import { DiskError } from '../common/errors.js';
import { BLOCK_SIZE, checkDiskSize, formatSize } from '../common/units.js';
import type { DeltaId } from '../engine/delta-id.js';
import { type VmContext, whileUnused, withVm } from './context.js';
import { type DiskRequest, MAX_DISKS } from './create.js';
import { withKind } from './disk-kinds.js';
import { goneDisk } from './exposure.js';
import { Preparation } from './preparation.js';
import { requireRoom } from './room.js';
import { type DiskRecord, findDisk, type Manifest } from './store/manifest.js';
import { checkName } from './store/names.js';
import type { VmEntry } from './store/vm-catalog.js';

/**
 * Gives a VM one more disk, which is empty. A guest that runs sees it after its next start.
 * @throws DiskError `usage`, `exists`; `failed` with ENOSPC when a static disk does not fit.
 */
export async function addDisk(
  context: VmContext,
  vm: string,
  request: DiskRequest,
): Promise<DiskRecord> {
  const { size, allocation = 'dynamic', kind = 'normal' } = request;
  if (request.name !== undefined) checkName('disk', request.name);
  const added = await withVm(context, vm, async (entry) => {
    const before = context.store.loadEntry(entry);
    const name = request.name ?? freeName(before);
    checkDiskSize(size, `disk "${name}"`);
    refuseSecond(vm, before, name);
    const data = allocation === 'static' ? size : 0;
    requireRoom(context.room, { what: `add a disk to "${vm}"`, deltas: 1, data });
    return Preparation.run(context, async (preparation) => {
      const spec = { below: { kind: 'none' }, virtualSize: size, allocation } as const;
      const head = await preparation.createDelta(spec);
      const plain = { name, node: before.nextNode, size, allocation, head };
      const disk = await withKind(preparation, plain, kind);
      const after = { ...before, disks: [...before.disks, disk], nextNode: before.nextNode + 1 };
      await preparation.commit(await context.store.prepareChange(entry, after));
      return disk;
    });
  });
  context.hooks.namesChanged(vm);
  return added;
}

/**
 * Takes a disk away from a VM, with what is in it now; snapshots keep theirs.
 * @throws DiskError `not-found`, `busy` while a disk is in use, `usage` for the only one.
 */
export async function removeDisk(context: VmContext, vm: string, name: string): Promise<void> {
  await withUnusedDisk(context, { vm, name, what: `remove disk "${name}"` }, async (use) => {
    const { entry, before, disk } = use;
    if (before.disks.length === 1) {
      throw new DiskError('usage', `"${name}" is the only disk of "${vm}"`, {
        hint: `add another one first, or delete the VM: layerdisk delete ${vm}`,
      });
    }
    const { [name]: _, ...serials } = before.serials ?? {};
    const { serials: __, ...rest } = before;
    const after = {
      ...rest,
      ...(before.serials === undefined ? {} : { serials }),
      disks: before.disks.filter((each) => each !== disk),
    };
    await Preparation.run(context, async (preparation) => {
      await preparation.commit(await context.store.prepareChange(entry, after));
    });
    context.hooks.namesChanged(vm, [goneDisk(entry, name)]);
  });
  context.onGarbage();
}

export interface Resize {
  readonly disk: string;
  /** Bytes; whole blocks. */
  readonly size: number;
  /** Agrees to losing what lies past the new end. */
  readonly shrink?: boolean;
}

/**
 * Gives a disk another size: a new head on today's. What a larger one gains reads as zero, also
 * where the disk was larger before. Snapshots keep the size that they were taken with.
 * @throws DiskError `not-found`, `usage`, `busy` while a disk is in use, `not-supported` for an
 * immutable disk.
 */
export async function resizeDisk(context: VmContext, vm: string, request: Resize): Promise<void> {
  const { disk: name, size } = request;
  await withUnusedDisk(context, { vm, name, what: `resize disk "${name}"` }, async (use) => {
    const { disk } = use;
    checkResize(vm, disk, request);
    context.chains.checkRoom(disk.head, `${vm}/${name}`);
    requireRoom(context.room, { what: `resize disk "${name}" of "${vm}"`, deltas: 1 });
    await context.engine.volumes.close(disk.head);
    const gained = size - disk.size;
    if (gained > 0 && mayShowMore(context, disk)) await growOverHidden(context, use, size);
    else await moveTo(context, use, size);
  });
  context.hooks.namesChanged(vm);
}

/** One head more, of this size, on today's. */
async function moveTo(context: VmContext, use: DiskUse, size: number): Promise<DiskUse> {
  return changeHead(context, use, { size, below: use.disk.head });
}

/**
 * What lies below knows more blocks than the disk has now, which must not be seen again: the new
 * head begins with zeroes over them. It is opened to write those, so what it stands on is sealed
 * before; if no more than that is done, the disk is as it was.
 */
async function growOverHidden(context: VmContext, use: DiskUse, size: number): Promise<void> {
  const { head: below, size: zeroFrom } = use.disk;
  await Preparation.run(context, async (preparation) => {
    // In between it is no head any more, and nothing else's.
    preparation.pin(below);
    const sealed = await moveTo(context, use, zeroFrom);
    await changeHead(context, sealed, { size, below, zeroFrom });
  });
  context.onGarbage();
}

interface NewHead {
  readonly size: number;
  readonly below: DeltaId;
  /** Bytes from here on read as zero, whatever lies below. */
  readonly zeroFrom?: number;
}

/** @returns what is then. */
async function changeHead(
  context: VmContext,
  { entry, before, disk }: DiskUse,
  { size, below, zeroFrom = size }: NewHead,
): Promise<DiskUse> {
  return Preparation.run(context, async (preparation) => {
    const spec = { below: { kind: 'delta', id: below }, virtualSize: size } as const;
    const head = await preparation.createDelta({ ...spec, allocation: 'dynamic' });
    if (zeroFrom < size) await context.engine.zero(head, zeroFrom, size - zeroFrom);
    const changed = { ...disk, size, head };
    const disks = before.disks.map((each) => (each === disk ? changed : each));
    const after = { ...before, disks };
    const pending = await context.store.prepareChange(entry, after);
    const place = { vmNumber: entry.number, nodes: [disk.node] };
    await preparation.commitContents([{ from: disk.head, to: head }], pending, place);
    return { entry, before: after, disk: changed };
  });
}

interface DiskUse {
  readonly entry: VmEntry;
  readonly before: Manifest;
  readonly disk: DiskRecord;
}

/** Runs `change` while nobody has the disk open, nor can open it. */
async function withUnusedDisk(
  context: VmContext,
  { vm, name, what }: { readonly vm: string; readonly name: string; readonly what: string },
  change: (use: DiskUse) => Promise<void>,
): Promise<void> {
  await withVm(context, vm, async (entry) => {
    const before = context.store.loadEntry(entry);
    const disk = findDisk(vm, before, name);
    const unused = { exposed: { vm, part: 'heads' }, nodes: [disk.node], what } as const;
    await whileUnused(context, entry, unused, () => change({ entry, before, disk }));
  });
}

function checkResize(vm: string, disk: DiskRecord, { size, shrink = false }: Resize): void {
  const what = `disk "${disk.name}" of "${vm}"`;
  checkDiskSize(size, what);
  if (size % BLOCK_SIZE !== 0) {
    throw new DiskError('usage', `${what}: ${size} bytes are no whole number of 4 KiB`, {
      hint: 'give a size such as 20G',
    });
  }
  if (disk.start !== undefined) {
    throw new DiskError('not-supported', `${what} is immutable: it goes back to what it was`, {
      hint: `make it normal first: layerdisk set ${vm} --disk-kind ${disk.name}=normal`,
    });
  }
  if (size === disk.size) {
    throw new DiskError('usage', `${what} has ${formatSize(size)} already`, {
      hint: 'give another size',
    });
  }
  if (size > disk.size || shrink) return;
  const lost = formatSize(disk.size - size);
  throw new DiskError('usage', `${what}: its last ${lost} would be lost`, {
    hint: 'make the file systems on it smaller first, take a snapshot, then say --shrink',
  });
}

/** Whether something below holds more than the disk shows: it was larger, or its image is. */
function mayShowMore({ engine, bases }: VmContext, { head, size }: DiskRecord): boolean {
  let id: DeltaId = head;
  for (;;) {
    const { below, virtualSize } = engine.deltas.describe(id);
    if (virtualSize > size) return true;
    if (below.kind === 'none') return false;
    if (below.kind === 'base') return bases.read(below.id).spec.virtualSize > size;
    id = below.id;
  }
}

function freeName({ disks }: Manifest): string {
  for (let count = 0; ; count += 1) {
    if (!disks.some(({ name }) => name === `disk${count}`)) return `disk${count}`;
  }
}

function refuseSecond(vm: string, { disks }: Manifest, name: string): void {
  if (disks.some((disk) => disk.name === name)) {
    throw new DiskError('exists', `"${vm}" has a disk "${name}" already`, {
      hint: 'give it another name: NAME=SIZE',
    });
  }
  if (disks.length < MAX_DISKS) return;
  throw new DiskError('usage', `"${vm}" has ${MAX_DISKS} disks, which is the limit`, {
    hint: `remove one first: layerdisk disk remove ${vm} NAME`,
  });
}
