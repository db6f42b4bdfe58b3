/**
 * What a daemon that is loaded ahead looks at before it says that it is: whether it could go on
 * with what the running one has. After a downgrade it may not, and that one must not hand over.
 */
import { fstatSync, readlinkSync } from 'node:fs';
import { resolve } from 'node:path';
import { DiskError } from '../common/errors.js';
import { requireHeldFolder } from '../storage/file-lock.js';
import { requireReadableLog } from '../transport/kernel/handle-log.js';
import { layoutOf, readIdentity } from '../vm/store/store-layout.js';
import { FIRST_KEPT_FD, KEPT, keptFileName } from './supervision.js';

/**
 * @throws DiskError `not-supported` when this program does not know the version of the store, or
 * how the open files are noted; `failed` when the store is not where it was.
 */
export function refuseHandover(store: string): void {
  const log = inherited(isLog);
  if (log === undefined) return;
  requireReadableLog(log);
  const folder = inherited((fd) => fstatSync(fd).isDirectory());
  if (folder !== undefined) requireHeldFolder(store, folder);
  try {
    readIdentity(layoutOf(resolve(store)));
  } catch (error) {
    if (error instanceof DiskError && error.code === 'not-supported') throw error;
    // Whatever else it is may be over by the time that it has to serve, and is told then.
  }
}

function isLog(fd: number): boolean {
  return readlinkSync(`/proc/self/fd/${fd}`).startsWith(`/memfd:${keptFileName('handles')} `);
}

/** Which descriptor is which is told with the handover: until then it is known by what it is. */
function inherited(isIt: (fd: number) => boolean): number | undefined {
  const numbers = KEPT.map((_, index) => FIRST_KEPT_FD + index);
  return numbers.find((fd) => {
    try {
      return isIt(fd);
    } catch {
      // Not every daemon inherits as many.
      return false;
    }
  });
}
