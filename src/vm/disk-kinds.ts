/**
 * Kinds of disks, as VirtualBox has them. What each means for an operation is asked here.
 *
 * | kind | snapshot, restore | start of the guest | clone, export |
 * | --- | --- | --- | --- |
 * | normal | in it, goes back | | all |
 * | write-through | not in it, stays | | not in a linked clone |
 * | immutable | in it, goes back | goes back to what it was made with | all; stays immutable |
 * | read-only | in it, goes back | cannot be written | all; stays read-only |
 */
import { DiskError } from '../common/errors.js';
import type { HeadSwitch } from '../engine/engine.js';
import { type VmContext, whileClosed, whileUnused, withVm } from './context.js';
import { Preparation } from './preparation.js';
import { type DiskRecord, findDisk, type Manifest } from './store/manifest.js';
import type { VmEntry } from './store/vm-catalog.js';

export type DiskKind = 'normal' | NonNullable<DiskRecord['kind']>;

type KindPart = Pick<DiskRecord, 'kind' | 'start'>;

export function kindOf({ kind }: KindPart): DiskKind {
  return kind ?? 'normal';
}

/** What a record of the same disk elsewhere says of its kind. */
export function kindPart({ kind, start }: KindPart): KindPart {
  return { ...(kind === undefined ? {} : { kind }), ...(start === undefined ? {} : { start }) };
}

export function isInSnapshots(disk: KindPart): boolean {
  return disk.kind !== 'write-through';
}

/**
 * A disk as one of another kind: what an immutable one goes back to is what it contains now, so it
 * gets an empty head.
 */
export async function withKind(
  preparation: Preparation,
  disk: DiskRecord,
  kind: DiskKind,
): Promise<DiskRecord> {
  const { kind: _, start: __, ...plain } = disk;
  if (kind === 'normal') return plain;
  if (kind !== 'immutable') return { ...plain, kind };
  const head = await emptyHead(preparation, disk, disk.head);
  return { ...plain, kind, head, start: disk.head };
}

function emptyHead(preparation: Preparation, { size }: DiskRecord, below: string): Promise<string> {
  const spec = { below: { kind: 'delta', id: below }, virtualSize: size } as const;
  return preparation.createDelta({ ...spec, allocation: 'dynamic' });
}

/** What the heads of a VM's disks move to when `disks` takes their place. */
function switchesTo(before: Manifest, disks: readonly DiskRecord[]): HeadSwitch[] {
  return disks.flatMap(({ name, head }) => {
    const from = before.disks.find((disk) => disk.name === name)?.head;
    return from === undefined || from === head ? [] : [{ from, to: head }];
  });
}

export interface KindChange {
  readonly disk: string;
  readonly kind: DiskKind;
}

/**
 * Changes kinds of disks; making an immutable disk immutable keeps what it contains now.
 * @throws DiskError `usage` for a disk that is named twice, `not-found` for an unknown one, `busy`
 * while a disk is in use.
 */
export async function changeKinds(
  context: VmContext,
  vm: string,
  changes: readonly KindChange[],
): Promise<void> {
  await withVm(context, vm, async (entry) => {
    const before = context.store.loadEntry(entry);
    refuseTwice(vm, changes);
    for (const { disk } of changes) findDisk(vm, before, disk);
    const what = `change the disks of "${vm}"`;
    const nodes = before.disks.map(({ node }) => node);
    const unused = { exposed: { vm, part: 'heads' }, nodes, what } as const;
    // Whoever opens one now finds the kind that it is to have.
    await whileUnused(context, entry, unused, () => commitKinds(context, entry, before, changes));
  });
  context.hooks.namesChanged(vm);
}

/** For who keeps the disks from being opened. */
async function commitKinds(
  context: VmContext,
  entry: VmEntry,
  before: Manifest,
  changes: readonly KindChange[],
): Promise<void> {
  await Preparation.run(context, async (preparation) => {
    const disks: DiskRecord[] = [];
    for (const disk of before.disks) {
      const change = changes.find(({ disk: name }) => name === disk.name);
      if (change === undefined) disks.push(disk);
      else {
        if (change.kind === 'immutable') {
          context.chains.checkRoom(disk.head, `${entry.name}/${disk.name}`);
        }
        disks.push(await withKind(preparation, disk, change.kind));
      }
    }
    const pending = await context.store.prepareChange(entry, { ...before, disks });
    await preparation.commitHeads(switchesTo(before, disks), pending);
  });
}

function refuseTwice(vm: string, changes: readonly KindChange[]): void {
  const names = changes.map(({ disk }) => disk);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice === undefined) return;
  throw new DiskError('usage', `the kind of disk "${twice}" of "${vm}" is given more than once`, {
    hint: 'give each disk one kind',
  });
}

/**
 * Puts immutable disks back to what they were made with. For who is about to start the guest, and
 * has seen that nobody uses the disks. @throws DiskError `busy` when somebody does since.
 */
export async function resetImmutable(context: VmContext, vm: string): Promise<void> {
  const { chains, store } = context;
  const reset = await withVm(context, vm, async (entry) => {
    const before = store.loadEntry(entry);
    const touched = (disk: DiskRecord) =>
      disk.start !== undefined && !chains.isUntouchedSince(disk.head, disk.start);
    const nodes = before.disks.filter(touched).map(({ node }) => node);
    if (nodes.length === 0) return false;
    // Not asked who uses them: the guest that is being started would be named.
    await whileClosed(context, entry, { nodes, what: `run "${vm}"` }, () =>
      commitReset(context, entry, before, nodes),
    );
    return true;
  });
  if (reset) context.onGarbage();
}

/** For who keeps the disks from being opened. @param nodes of those that go back. */
async function commitReset(
  context: VmContext,
  entry: VmEntry,
  before: Manifest,
  nodes: readonly number[],
): Promise<void> {
  await Preparation.run(context, async (preparation) => {
    const disks: DiskRecord[] = [];
    for (const disk of before.disks) {
      const { start } = disk;
      const again = start !== undefined && nodes.includes(disk.node);
      disks.push(again ? { ...disk, head: await emptyHead(preparation, disk, start) } : disk);
    }
    const pending = await context.store.prepareChange(entry, { ...before, disks });
    const place = { vmNumber: entry.number, nodes };
    await preparation.commitContents(switchesTo(before, disks), pending, place);
  });
}

/** @throws DiskError `not-supported`: memory remembers all disks, and these go on without it. */
export function refuseMemoryBeside(vm: string, disks: readonly DiskRecord[]): void {
  const disk = disks.find((each) => !isInSnapshots(each));
  if (disk === undefined) return;
  throw new DiskError(
    'not-supported',
    `the memory of "${vm}" cannot be saved: disk "${disk.name}" is write-through, so it does not ` +
      'go back with the memory',
    { hint: 'leave --memory out, or make the disk normal' },
  );
}
