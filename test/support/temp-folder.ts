/** A folder of its own for a test, removed when the test ends. */
import { mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export function tempFolder(t: { teardown(work: () => void): void }): string {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), 'layerdisk-test-')));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}
