/** Whether one place lies in another, by their names alone: nothing is looked up. */

/** Both absolute and without `.` or `..`; a folder is at itself, and everything is below `/`. */
export function isAtOrBelow(path: string, folder: string): boolean {
  return path === folder || path.startsWith(folder.endsWith('/') ? folder : `${folder}/`);
}
