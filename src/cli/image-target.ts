/** What a word that may mean a file or a VM means. */
import { statSync } from 'node:fs';
import { resolve } from 'node:path';

/** Names of VMs have no slash; a name without one that is a file here is taken for the file. */
export function isFile(text: string): boolean {
  if (text.includes('/')) return true;
  return statSync(resolve(text), { throwIfNoEntry: false })?.isFile() === true;
}
