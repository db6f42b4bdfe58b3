/** Making renames, creations and removals in a folder durable. */
import { closeSync, fstatSync, openSync } from 'node:fs';
import { hostCalls } from './host-calls.js';

/** On a thread of the pool. @throws the host's error. */
export async function syncFolderLater(path: string, label: string): Promise<void> {
  const folder = openSync(path, 'r');
  try {
    await hostCalls.syncLater(folder, label);
    refuseShutDown(folder);
  } finally {
    closeSync(folder);
  }
}

/** The same, at once. */
export function syncFolderNow(path: string, label: string): void {
  const folder = openSync(path, 'r');
  try {
    hostCalls.sync(folder, label);
    refuseShutDown(folder);
  } finally {
    closeSync(folder);
  }
}

/**
 * XFS that has shut itself down after an error of its disk answers an fsync of a folder with yes,
 * though what was renamed there is lost. Looking at the folder fails then.
 * @throws EIO.
 */
function refuseShutDown(folder: number): void {
  fstatSync(folder);
}
