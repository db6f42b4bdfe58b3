/** Names that users give: of VMs, snapshots, disks and networks. */
import { DiskError } from '../../common/errors.js';

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
const LONGEST_SHOWN = 80;

export function isName(text: string): boolean {
  return NAME.test(text);
}

/**
 * @param kind `VM`, `snapshot`, ...: says in the error what was named.
 * @throws DiskError `usage`.
 */
export function checkName(kind: string, name: string): void {
  if (isName(name)) return;
  const shown = name.length > LONGEST_SHOWN ? `${name.slice(0, LONGEST_SHOWN)}...` : name;
  throw new DiskError('usage', `${JSON.stringify(shown)} is no valid ${kind} name`, {
    hint: 'use 1 to 64 letters, digits, ".", "_" or "-", starting with a letter or digit',
  });
}
