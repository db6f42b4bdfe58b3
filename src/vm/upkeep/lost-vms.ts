/**
 * Stores that were found without a single VM, and with data all the same. Perhaps the VMs were
 * deleted and the daemon ended before it collected what was theirs; perhaps the folder `vms` was
 * emptied, or is where something else should be mounted. To collect would make the latter final.
 */
import { DiskError } from '../../common/errors.js';
import type { VmContext } from '../context.js';
import { isName } from '../store/names.js';

/** A manifest in the trash: a VM that was deleted. */
const TRASHED_MANIFEST = /^\d+-[0-9a-f]{8}-(?<name>.+)\.json$/;
const BASE_ID = /^[0-9a-f]{32}$/;

/**
 * Looks at the store as it is at the start, before any request.
 * @returns what is to be said instead of collecting; undefined when nothing looks lost.
 */
export async function findLostVms(context: VmContext): Promise<DiskError | undefined> {
  const { engine, store } = context;
  if (store.catalog.size > 0 || store.catalog.damaged().length > 0) return undefined;
  const deltas = await engine.deltas.list();
  if (deltas.length === 0) return undefined;
  const trash = await store.trash.list();
  if (trash.some(({ name }) => isManifest(name))) return undefined;
  const what = `the store has no VM in ${store.layout.vms}, but ${deltas.length} deltas of some`;
  return new DiskError('damaged', `${what}: they are left alone`, {
    hint: 'bring the manifests back from a backup; if the VMs were to go: layerdisk gc',
  });
}

function isManifest(trashed: string): boolean {
  const name = TRASHED_MANIFEST.exec(trashed)?.groups?.name;
  return name !== undefined && isName(name) && !BASE_ID.test(name);
}
