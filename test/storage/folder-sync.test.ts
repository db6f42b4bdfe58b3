/** A folder's sync is no success on a file system that has shut itself down. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { truncate } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { syncFolderLater, syncFolderNow } from '../../src/storage/folder-sync.js';
import { hostCalls } from '../../src/storage/host-calls.js';
import { loopDevice, mountOn } from '../support/mount-guard.js';
import { cutPower } from '../support/remount.js';
import { tool } from '../support/run-program.js';
import { tempFolder } from '../support/temp-folder.js';

const SIZES = { ext4: 16, xfs: 320 } as const;

const skip = process.getuid?.() === 0 ? false : 'mounting needs root';

/** A mounted file system, and a folder in it with a rename that is not durable. */
async function renamed(t: Test, kind: keyof typeof SIZES): Promise<{ on: string; inner: string }> {
  const folder = tempFolder(t);
  const image = join(folder, 'image');
  writeFileSync(image, '');
  await truncate(image, SIZES[kind] * 2 ** 20);
  await tool(`mkfs.${kind}`, ['-q', image]);
  const on = join(folder, 'on');
  await mountOn(t, await loopDevice(t, image), on);
  const inner = join(on, 'inner');
  mkdirSync(inner);
  writeFileSync(join(inner, 'before'), '');
  syncFolderNow(inner, 'test');
  await syncFolderLater(inner, 'test');
  renameSync(join(inner, 'before'), join(inner, 'after'));
  return { on, inner };
}

for (const kind of Object.keys(SIZES) as (keyof typeof SIZES)[]) {
  t.test(`of ${kind}`, { skip }, async (t) => {
    const { on, inner } = await renamed(t, kind);
    await cutPower(on);
    t.throws(() => syncFolderNow(inner, 'test'), { code: 'EIO' });
    await t.rejects(syncFolderLater(inner, 'test'), { code: 'EIO' });
  });

  for (const when of ['now', 'later'] as const) {
    t.test(`of ${kind} that shuts down when the folder is open: ${when}`, { skip }, async (t) => {
      const { on, inner } = await renamed(t, kind);
      const { sync, syncLater } = hostCalls;
      t.teardown(() => Object.assign(hostCalls, { sync, syncLater }));
      const shutDown = () => execFileSync('xfs_io', ['-x', '-c', 'shutdown', on]);
      hostCalls.sync = (fd, label) => {
        shutDown();
        sync(fd, label);
      };
      hostCalls.syncLater = async (fd, label) => {
        shutDown();
        await syncLater(fd, label);
      };
      if (when === 'now') t.throws(() => syncFolderNow(inner, 'test'), { code: 'EIO' });
      else await t.rejects(syncFolderLater(inner, 'test'), { code: 'EIO' });
    });
  }
}
