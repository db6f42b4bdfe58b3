/** What a word that may mean a file or a VM means. */
import { statSync } from 'node:fs';
import { resolve } from 'node:path';
import { DiskError, errnoName } from '../common/errors.js';

/** Names of VMs have no slash; a name without one that is a file here is taken for the file. */
export function isFile(text: string): boolean {
  if (text.includes('/')) return true;
  try {
    return statSync(resolve(text), { throwIfNoEntry: false })?.isFile() === true;
  } catch (error) {
    // Links that go round, say: opening it tells why. No file has a name that is too long.
    return errnoName(error) !== 'ENAMETOOLONG';
  }
}

/**
 * An error about a VM whose name somebody may have meant as a file's: says that there is no such
 * file, either.
 */
export function asNoFile(target: string, error: unknown): unknown {
  if (!(error instanceof DiskError)) return error;
  const { code, message, hint } = error;
  const [vm = ''] = target.split('@');
  // What a VM that is there lacks, its base image say, has nothing to do with files here.
  if (code !== 'unreachable' && message !== `there is no VM "${vm}"`) return error;
  return new DiskError(code, `no file "${target}" is here, and ${message}`, {
    ...(hint === undefined ? {} : { hint }),
    cause: error,
  });
}
