/** Turns the Windows paths by which Microsoft's formats name parents into names to try. */

/**
 * `\\?\C:\x\y`, `..\x\y` with POSIX separators, without the prefix for long paths and without `.\`.
 */
export function posixSeparators(windowsPath: string): string {
  return windowsPath
    .replace(/^\\\\\?\\UNC\\/, '\\\\')
    .replace(/^\\\\\?\\/, '')
    .replace(/^(\.\\)+/, '')
    .replaceAll('\\', '/');
}

/** The part behind the last separator of either kind. */
export function baseName(path: string): string {
  return path.slice(Math.max(path.lastIndexOf('/'), path.lastIndexOf('\\')) + 1);
}

/**
 * The names to try for a parent, each once: the relative paths, then the bare names of all paths
 * (for a parent that was moved together with its child), then the absolute paths as they are, which
 * are told where all else fails.
 */
export function parentNames(relative: readonly string[], absolute: readonly string[]): string[] {
  const bare = [...relative, ...absolute].map(baseName);
  const drives = absolute.map(posixSeparators).filter((path) => !path.startsWith('Volume{'));
  const names = [...relative.map(posixSeparators), ...bare, ...drives];
  return [...new Set(names)].filter((name) => name !== '' && name !== '.' && name !== '..');
}
