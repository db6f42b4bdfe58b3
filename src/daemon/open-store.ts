/** The store of a daemon: taken, or gone on with by the one after it. */
import { requireHeldFolder } from '../storage/file-lock.js';
import { VmStore } from '../vm/store/vm-store.js';
import { refuseHidingMount } from './mount-place.js';
import type { DaemonOptions } from './options.js';
import type { SupervisorLink } from './supervisor-link.js';

/**
 * Takes the store's lock, or goes on with the one that the last daemon had.
 * @throws DiskError as `VmStore.open`; `failed` when the last one's store is not there; `usage` for
 *   a mount point that hides what the daemon needs.
 */
export async function openStore(options: DaemonOptions, link?: SupervisorLink): Promise<VmStore> {
  const { acceptCopy } = options;
  const { lock, folder } = link?.handover.kept ?? {};
  if (lock !== undefined) {
    // A store that is made anew there knows nothing of the disks that are open.
    if (folder !== undefined) requireHeldFolder(options.store, folder);
    return VmStore.open(options.store, undefined, { held: { file: lock, folder }, acceptCopy });
  }
  // Before anything is made: a start that is refused leaves nothing.
  refuseHidingMount(options);
  const store = await VmStore.open(options.store, undefined, { acceptCopy });
  const held = store.lockDescriptors;
  link?.keep('lock', held.file);
  if (held.folder !== undefined) link?.keep('folder', held.folder);
  return store;
}
