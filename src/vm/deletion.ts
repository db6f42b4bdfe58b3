/** Removes a VM; what linked clones stand on stays. */
import type { DeltaId } from '../engine/delta-id.js';
import { type VmContext, whileUnused, withVm } from './context.js';
import type { Headroom } from './headroom.js';
import { diskNodes, labelledDeltas } from './store/manifest.js';
import type { VmEntry } from './store/vm-catalog.js';

/**
 * @returns how many of the deltas that it alone had a name for stay because linked clones stand on
 * them.
 * @throws DiskError `not-found`, `damaged`, `busy`.
 */
export async function deleteVm(
  context: VmContext,
  headroom: Headroom,
  vm: string,
): Promise<number> {
  const kept = await withVm(context, vm, async (entry) => {
    const count = await countKept(context, entry);
    const nodes = diskNodes(context.store.loadEntry(entry));
    const unused = { exposed: { vm, part: 'all' }, nodes, what: `delete "${vm}"` } as const;
    await whileUnused(context, entry, unused, () =>
      headroom.lend(() => context.store.remove(entry)),
    );
    return count;
  });
  context.hooks.namesChanged(vm);
  context.onGarbage();
  return kept;
}

/**
 * Deltas that this VM reaches, and its linked clones, but none of the VMs it was cloned from (any
 * more).
 */
async function countKept({ store, chains }: VmContext, entry: VmEntry): Promise<number> {
  const clones = store.catalog.descendants(entry.id);
  if (clones.length === 0) return 0;
  const reach = async (entries: readonly VmEntry[], seen: Set<DeltaId>) => {
    for await (const manifest of store.eachManifest(entries)) {
      chains.reach(labelledDeltas(manifest), seen, new Set());
    }
    return seen;
  };
  const sources = (entry.facts.origin?.lineage ?? [])
    .map((id) => store.catalog.findById(id))
    .filter((each) => each !== undefined);
  const foreign = await reach(sources, new Set());
  const own = await reach([entry], new Set(foreign));
  const needed = await reach(clones, new Set());
  return [...own].filter((id) => !foreign.has(id) && needed.has(id)).length;
}
