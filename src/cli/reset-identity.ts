/** Clearing what makes a VM's system itself, while nobody else can use the VM. */
import { DiskError } from '../common/errors.js';
import { onInterrupt } from './interrupt.js';
import { plain } from './output.js';
import type { Session } from './session.js';

interface Disk {
  readonly name: string;
  readonly path: string;
}

export interface IdentityView {
  readonly cleared: readonly { readonly what: string; readonly path: string }[];
  readonly left: readonly { readonly what: string; readonly path: string; readonly why: string }[];
}

/**
 * Whether it can be done at all, before anything is made for it.
 * @throws DiskError `not-permitted`, `not-supported`.
 */
export async function checkResettable(vm: string, disks: readonly Disk[]): Promise<void> {
  const { findFileSystems } = await import('../identity/systems.js');
  await findFileSystems(vm, disks);
}

export async function refuseUnlessRoot(): Promise<void> {
  const { refuseResetWithoutRoot } = await import('../identity/reset.js');
  refuseResetWithoutRoot();
}

/**
 * Holds the lock that a guest of the VM would hold, so that nobody starts one, restores or deletes
 * the VM meanwhile.
 * @throws DiskError; some may be cleared then.
 */
export async function resetVm(session: Session, vm: string): Promise<IdentityView> {
  const { folder } = await session.call('run', { vm });
  const { RunLock } = await import('../guest/run-folder.js');
  const { resetIdentity } = await import('../identity/reset.js');
  const lock = await RunLock.acquire(folder, vm);
  const controller = new AbortController();
  const release = onInterrupt(() => controller.abort());
  try {
    // Asked again under the lock: nothing else uses the disks from now on.
    const plan = await session.call('run', { vm });
    if (plan.folder !== folder) throw new DiskError('not-found', `VM "${vm}" was replaced`);
    const { disks } = plan.vm;
    return await resetIdentity({ vm, disks, lock: lock.fd, signal: controller.signal });
  } finally {
    release();
    lock.release();
  }
}

/** What was cleared, by what it was, and what was not. */
export function identityLines(vm: string, { cleared, left }: IdentityView): string[] {
  const counts = new Map<string, number>();
  for (const { what } of cleared) counts.set(what, (counts.get(what) ?? 0) + 1);
  const parts = [...counts].map(([what, count]) => (count === 1 ? what : `${what} (${count})`));
  const lines = [
    `cleared in ${vm}: ${parts.length === 0 ? 'nothing was there' : parts.join(', ')}`,
  ];
  for (const { what, path, why } of left) {
    lines.push(`warning: ${what} ${plain(path)} is left: ${why}`);
  }
  if (counts.has('SSH host key')) {
    lines.push('note: where nothing makes SSH host keys at boot, run ssh-keygen -A in the guest');
  }
  return lines;
}
