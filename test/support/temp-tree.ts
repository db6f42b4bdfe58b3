/** Temporary folders that vanish with the test, with small trees of files in them. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { Test } from 'tap';

/** A fresh folder below the system's temporary folder, removed when `t` ends. */
export async function tempFolder(t: Test, name = 'test'): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), `layerdisk-${name}-`));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** Writes `files` (relative path -> content) into a fresh folder and answers the folder. */
export async function tempTree(
  t: Test,
  files: Readonly<Record<string, string | Buffer>>,
): Promise<string> {
  const root = await tempFolder(t, 'tree');
  for (const [path, content] of Object.entries(files)) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await writeFile(join(root, path), content);
  }
  return root;
}
