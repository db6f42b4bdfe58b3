/** The cache epoch: the same for every process, another one after an unmount and mount. */
import { mkdirSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { cacheEpoch } from '../../src/storage/cache-epoch.js';
import { mount } from '../../src/storage/libc.js';
import { runProgram, tool } from '../support/run-program.js';
import { tempFolder } from '../support/temp-folder.js';

const SIZES = { ext4: 16, xfs: 300, btrfs: 120 } as const;

t.test('it stays while nothing happens', async (t) => {
  t.match(cacheEpoch(tmpdir()), /^[0-9a-f]{32}$/);
  t.equal(cacheEpoch(tmpdir()), cacheEpoch(tmpdir()));
});

const skip = process.getuid?.() === 0 ? false : 'mounting needs root';

/** A new file system in a file, and a folder for it: both are gone with the test. */
async function makeImage(t: Test, kind: keyof typeof SIZES, folder: string): Promise<string> {
  const image = `${tempFolder(t)}/image`;
  writeFileSync(image, '');
  truncateSync(image, SIZES[kind] * 2 ** 20);
  await tool(`mkfs.${kind}`, ['-q', image]);
  mkdirSync(folder, { recursive: true });
  t.teardown(() => runProgram('umount', ['-l', folder]));
  return image;
}

for (const kind of Object.keys(SIZES) as (keyof typeof SIZES)[]) {
  t.test(`it changes when ${kind} is mounted anew`, { skip }, async (t) => {
    const folder = join(tempFolder(t), 'mount');
    const image = await makeImage(t, kind, folder);
    const epochs = new Set<string>();
    for (let round = 0; round < 3; round += 1) {
      await tool('mount', ['-o', 'loop', image, folder]);
      const epoch = cacheEpoch(folder);
      t.notOk(epochs.has(epoch), 'a new one');
      t.equal(cacheEpoch(folder), epoch, 'the same while it is mounted');
      epochs.add(epoch);
      await tool('umount', [folder]);
    }
  });
}

t.test('a place whose name the table of mounts escapes', { skip }, async (t) => {
  const outer = tempFolder(t);
  await tool('mount', ['-t', 'tmpfs', 'layerdisk-test', outer]);
  t.teardown(() => runProgram('umount', ['-l', outer]));
  const folder = join(outer, 'my disk');
  const image = await makeImage(t, 'ext4', folder);
  const epochs = new Set<string>();
  for (const _ of [1, 2]) {
    await tool('mount', ['-o', 'loop', image, folder]);
    epochs.add(cacheEpoch(folder));
    await tool('umount', [folder]);
  }
  t.equal(epochs.size, 2, 'what surrounds it is not taken for it');
});

t.test('btrfs on a device that has another name', { skip }, async (t) => {
  const folder = join(tempFolder(t), 'mount');
  const image = await makeImage(t, 'btrfs', folder);
  const device = await tool('losetup', ['--find', '--show', image]);
  t.teardown(() => runProgram('losetup', ['--detach', device.trim()]));
  // As those of /dev/mapper have: the kernel shows the one that was mounted.
  const link = join(tempFolder(t), 'volume');
  symlinkSync(device.trim(), link);
  const epochs = new Set<string>();
  for (const _ of [1, 2]) {
    mount({ source: link, target: folder, type: 'btrfs', flags: 0, data: '' });
    epochs.add(cacheEpoch(folder));
    await tool('umount', [folder]);
  }
  t.equal(epochs.size, 2);
});
