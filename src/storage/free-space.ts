/** How much room a file system has. */
import { statfsSync, statSync } from 'node:fs';
import { orHostError } from './exact-io.js';

export interface FreeSpace {
  /** Bytes. */
  readonly total: number;
  readonly used: number;
  /** Bytes that anybody may still take: without what the host keeps for root alone. */
  readonly free: number;
}

/**
 * Of the file system that `path` lies in. Synchronous: the answer is of this instant, and the
 * question costs microseconds.
 * @throws DiskError when the host does not say.
 */
export function freeSpace(path: string): FreeSpace {
  const what = `cannot see how much room ${path} has`;
  const { bsize, blocks, bfree, bavail } = orHostError(what, () => statfsSync(path));
  return { total: blocks * bsize, used: (blocks - bfree) * bsize, free: bavail * bsize };
}

/** Whether two folders take their space from the same file system. @throws the host's error. */
export function shareSpace(one: string, other: string): boolean {
  return statSync(one).dev === statSync(other).dev;
}
