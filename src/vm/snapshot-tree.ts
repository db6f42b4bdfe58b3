/**
 * The tree of a VM's snapshots, and where the present state stands in it. Pure: takes and gives
 * manifests.
 *
 *     first -- second -- third        current = third: the next snapshot hangs under third
 *          \
 *           +- other
 *
 * INVARIANT: every parent is a snapshot of the same VM or null; there is no cycle (checked by
 * `parseManifest`).
 */
import { DiskError } from '../common/errors.js';
import type { Manifest, SnapshotRecord } from './store/manifest.js';

type Tree = Pick<Manifest, 'snapshots' | 'current'>;

/** @throws DiskError `not-found`, naming the VM and the snapshot. */
export function findSnapshot(vm: string, tree: Tree, name: string): SnapshotRecord {
  const found = tree.snapshots.find((each) => each.name === name);
  if (found !== undefined) return found;
  throw new DiskError('not-found', `VM "${vm}" has no snapshot "${name}"`, {
    hint: `list them: layerdisk snapshot list ${vm}`,
    errno: 'ENOENT',
  });
}

/** @throws DiskError `exists`. */
export function checkSnapshotNameFree(vm: string, tree: Tree, name: string): void {
  if (!tree.snapshots.some((each) => each.name === name)) return;
  throw new DiskError('exists', `VM "${vm}" already has a snapshot "${name}"`, {
    hint: 'choose another name, or rename or delete that one',
  });
}

export function snapshotById(tree: Tree, id: string | null): SnapshotRecord | undefined {
  return id === null ? undefined : tree.snapshots.find((each) => each.id === id);
}

/** Snapshots directly under `id` (null: those at the root), in the order they were taken. */
export function childrenOf(tree: Tree, id: string | null): SnapshotRecord[] {
  return tree.snapshots.filter((each) => each.parent === id);
}

/** The new snapshot hangs under the current one, and the present state under the new one. */
export function withSnapshot<T extends Tree>(tree: T, snapshot: SnapshotRecord): T {
  const added = { ...snapshot, parent: tree.current };
  return { ...tree, snapshots: [...tree.snapshots, added], current: added.id };
}

/** What stood on the removed snapshot now stands on the one below it. */
export function withoutSnapshot<T extends Tree>(tree: T, id: string): T {
  const removed = snapshotById(tree, id);
  if (removed === undefined) return tree;
  const snapshots = tree.snapshots
    .filter((each) => each.id !== id)
    .map((each) => (each.parent === id ? { ...each, parent: removed.parent } : each));
  return { ...tree, snapshots, current: tree.current === id ? removed.parent : tree.current };
}

export function withRenamedSnapshot<T extends Tree>(tree: T, id: string, name: string): T {
  const snapshots = tree.snapshots.map((each) => (each.id === id ? { ...each, name } : each));
  return { ...tree, snapshots };
}

/**
 * The first of `PREFIX`, `PREFIX-2`, `PREFIX-3`, ... that no snapshot has; at most 64 characters.
 */
export function freeSnapshotName(tree: Tree, prefix: string): string {
  const taken = new Set(tree.snapshots.map((each) => each.name));
  for (let count = 1; ; count += 1) {
    const suffix = count === 1 ? '' : `-${count}`;
    const name = prefix.slice(0, 64 - suffix.length) + suffix;
    if (!taken.has(name)) return name;
  }
}
