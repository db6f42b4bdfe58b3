/** Taking base images that were changed from outside as they are now. */
import { refuseWhileHeld, type VmContext, withVm } from '../context.js';
import { diskNodes, labelledDeltas } from '../store/manifest.js';
import type { VmEntry } from '../store/vm-catalog.js';

/**
 * Whoever has a disk on such an image open goes on with what he knows of the former one, so nobody
 * may: what he is shown would be neither.
 * @returns the images that had changed.
 * @throws DiskError `busy` while a disk that stands on one of them is in use.
 */
export async function acceptBases(context: VmContext, vm: string): Promise<string[]> {
  const { bases, chains, engine, store } = context;
  return withVm(context, vm, async (entry) => {
    const ids = new Set<string>();
    chains.reach(labelledDeltas(store.loadEntry(entry)), new Set(), ids);
    const changed: string[] = [];
    for (const id of ids) if (await bases.hasChanged(id)) changed.push(id);
    if (changed.length === 0) return [];
    const readers = relativesOf(context, entry);
    for (const { name } of readers) {
      const what = `accept the changed image under "${vm}"`;
      await refuseWhileHeld(context, { vm: name, part: 'all' }, what);
    }
    // Until it is accepted nobody opens it again.
    for (const id of changed) await engine.volumes.closeOn(id);
    // As nobody can open it, nothing of it comes back into the kernel's caches. Forgotten after the
    // commit, it would stay there if this process died in between: the next one sees no change.
    await forgetContent(context, readers);
    const accepted: string[] = [];
    for (const id of changed) {
      const path = await bases.accept(id);
      if (path !== undefined) accepted.push(path);
    }
    return accepted;
  });
}

/** All VMs that may stand on the same images: it, those it was cloned from, and clones of these. */
function relativesOf({ store }: VmContext, entry: VmEntry): VmEntry[] {
  const family = new Set([entry.id, ...(entry.facts.origin?.lineage ?? [])]);
  return store.catalog
    .list()
    .filter(({ id, facts }) =>
      [id, ...(facts.origin?.lineage ?? [])].some((one) => family.has(one)),
    );
}

async function forgetContent(
  { hooks, store }: VmContext,
  readers: readonly VmEntry[],
): Promise<void> {
  for (const each of readers) {
    await hooks.contentChanged(each.number, diskNodes(store.readEntry(each)));
  }
}
