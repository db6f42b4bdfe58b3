/** Which modules nothing leads to: from the programs for src/, from the tests for test/. */
import { resolveRelative } from './source-tree.mjs';

/**
 * Where execution starts: programs, the package's exports, every test file; scripts are started by
 * name.
 */
const STARTS = [
  /^src\/(index|cli\/main|daemon\/main)\.ts$/,
  /^test\/.+\.test\.ts$/,
  /^scripts\/.+\.mjs$/,
];

/**
 * A module of src/ that only tests use is dead, too: nobody would miss it.
 * @param {import('./source-tree.mjs').Source[]} sources all code of the project
 * @returns {string[]} paths
 */
export function unreachableFiles(sources) {
  const byPath = new Map(sources.map((source) => [source.path, source]));
  const reached = new Set();
  const visit = (source, stayIn) => {
    if (reached.has(source.path)) return;
    reached.add(source.path);
    for (const { specifier } of source.imports) {
      const target = resolveRelative(source.path, specifier);
      const next = target === undefined ? undefined : byPath.get(target);
      if (next?.path.startsWith(stayIn)) visit(next, stayIn);
    }
  };
  for (const source of sources) {
    const folder = `${source.path.split('/')[0]}/`;
    if (STARTS.some((start) => start.test(source.path))) visit(source, folder);
  }
  return sources.map(({ path }) => path).filter((path) => !reached.has(path));
}
