/** What tells a file from all others, by whatever path. */
import { statSync } from 'node:fs';
import { stat } from 'node:fs/promises';

export function fileIdOf({ dev, ino }: { readonly dev: bigint; readonly ino: bigint }): string {
  return `${dev}:${ino}`;
}

/** Links are followed; undefined where there is nothing. @throws the host's error. */
export function fileId(path: string): string | undefined {
  const state = statSync(path, { bigint: true, throwIfNoEntry: false });
  return state === undefined ? undefined : fileIdOf(state);
}

/** The same on a pool thread; undefined also for what can't be looked at. */
export async function findFileId(path: string): Promise<string | undefined> {
  try {
    return fileIdOf(await stat(path, { bigint: true }));
  } catch {
    // Whoever opens the file says what is wrong with it.
    return undefined;
  }
}
