/** Which files this process has open: an image's reader may open those of the image's folder. */
import { openFiles } from '../support/footprint.js';

/** Paths of ordinary files. */
export function openRegularFiles(): string[] {
  return openFiles(process.pid).filter((path) => /^\/(?!proc|dev|sys)/.test(path));
}

/** @param folder where files may have been opened; undefined: nowhere. */
export function filesOpenedBesides(
  before: readonly string[],
  folder: string | undefined,
): string[] {
  const others = new Set(before);
  return openRegularFiles().filter(
    (path) => !others.has(path) && (folder === undefined || !path.startsWith(folder)),
  );
}
