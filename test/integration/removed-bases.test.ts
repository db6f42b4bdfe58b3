/**
 * An image that a VM stood on and that was removed with it gives its space back, although nobody
 * uses the mount any more: no thread goes on holding it open, and nothing is said of it.
 */
import { randomBytes } from 'node:crypto';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { MiB } from '../../src/common/units.js';
import { startDaemon } from '../support/daemon.js';
import { openFiles } from '../support/footprint.js';
import { cannotServe } from '../support/mount-guard.js';
import { eventually } from '../support/takeover.js';

const IMAGES = 8;

/** Paths of removed files that a process has open. */
function removedFiles(pid: number): string[] {
  return openFiles(pid).filter((path) => path.startsWith('/') && path.endsWith(' (deleted)'));
}

t.test('bases that were removed', { skip: cannotServe() }, async (t) => {
  const daemon = await startDaemon(t, { args: ['--threads', '3'] });
  const isOurs = (path: string): boolean => path.includes('image');
  for (let index = 0; index < IMAGES; index += 1) {
    const image = join(daemon.folder, `image${index}.raw`);
    const content = randomBytes(MiB);
    await writeFile(image, content);
    await daemon.ok('import', image, `vm${index}`);
    // Large enough for more than one thread.
    t.ok((await readFile(daemon.rawFile(`vm${index}`))).equals(content));
    await daemon.ok('delete', `vm${index}`);
    await rm(image);
  }
  t.not(removedFiles(daemon.pid).filter(isOurs).length, 0, 'for a moment');
  await eventually('all closed', () =>
    removedFiles(daemon.pid).some(isOurs) || undefined ? undefined : true,
  );
  t.notMatch(
    await readFile(join(daemon.store, 'daemon.log'), 'utf8').catch(() => ''),
    /base image/,
  );
  await daemon.stop();
});
