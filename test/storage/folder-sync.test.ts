/** A folder's sync is no success on a file system that has shut itself down. */
import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { truncate } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { syncFolderLater, syncFolderNow } from '../../src/storage/folder-sync.js';
import { loopDevice, mountOn } from '../support/mount-guard.js';
import { cutPower } from '../support/remount.js';
import { tool } from '../support/run-program.js';
import { tempFolder } from '../support/temp-folder.js';

const SIZES = { ext4: 16, xfs: 320 } as const;

for (const [kind, megabytes] of Object.entries(SIZES)) {
  const skip = process.getuid?.() === 0 ? false : 'mounting needs root';
  t.test(`of ${kind}`, { skip }, async (t) => {
    const folder = tempFolder(t);
    const image = join(folder, 'image');
    writeFileSync(image, '');
    await truncate(image, megabytes * 2 ** 20);
    await tool(`mkfs.${kind}`, ['-q', image]);
    const on = join(folder, 'on');
    await mountOn(t, await loopDevice(t, image), on);
    const inner = join(on, 'inner');
    mkdirSync(inner);
    writeFileSync(join(inner, 'before'), '');
    syncFolderNow(inner, 'test');
    await syncFolderLater(inner, 'test');
    renameSync(join(inner, 'before'), join(inner, 'after'));
    await cutPower(on);
    t.throws(() => syncFolderNow(inner, 'test'), { code: 'EIO' });
    await t.rejects(syncFolderLater(inner, 'test'), { code: 'EIO' });
  });
}
