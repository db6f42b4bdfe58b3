/** Checking the two files that speak of the store as a whole, as they lie on the disk. */
import { relative } from 'node:path';
import { DiskError } from '../../common/errors.js';
import type { VmStore } from '../store/vm-store.js';

export interface StoreFileProblem {
  readonly problem: string;
  /** In the store. */
  readonly file: string;
  readonly repaired: boolean;
  readonly remedy: string;
}

/** `repair` writes anew what the daemon knows since it read it whole. */
export async function checkStoreFiles(
  store: VmStore,
  repair: boolean,
): Promise<StoreFileProblem[]> {
  const problems: StoreFileProblem[] = [];
  for (const { path, read, rewrite } of store.ownFiles()) {
    try {
      read();
    } catch (error) {
      if (!(error instanceof DiskError)) throw error;
      const repaired = repair && rewrite !== undefined;
      if (repaired) await rewrite();
      problems.push({
        problem: error.message,
        file: relative(store.layout.root, path),
        repaired,
        remedy:
          rewrite === undefined
            ? (error.hint ?? 'restore it from a backup')
            : 'layerdisk check --repair',
      });
    }
  }
  return problems;
}
