/** How much room a file system has. */
import { statfsSync, statSync } from 'node:fs';

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
 * @throws the host's error.
 */
export function freeSpace(path: string): FreeSpace {
  const { bsize, blocks, bfree, bavail } = statfsSync(path);
  return { total: blocks * bsize, used: (blocks - bfree) * bsize, free: bavail * bsize };
}

/** Whether two folders take their space from the same file system. @throws the host's error. */
export function shareSpace(one: string, other: string): boolean {
  return statSync(one).dev === statSync(other).dev;
}
