/** The cache epoch: the same for every process, another one after an unmount and mount. */
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { cacheEpoch } from '../../src/storage/cache-epoch.js';
import { runProgram, tool } from '../support/run-program.js';

const SIZES = { ext4: 16, xfs: 300, btrfs: 120 } as const;

t.test('it stays while nothing happens', async (t) => {
  t.match(cacheEpoch(tmpdir()), /^[0-9a-f]{32}$/);
  t.equal(cacheEpoch(tmpdir()), cacheEpoch(tmpdir()));
});

for (const [kind, megabytes] of Object.entries(SIZES)) {
  const skip = process.getuid?.() === 0 ? false : 'mounting needs root';
  t.test(`it changes when ${kind} is mounted anew`, { skip }, async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'layerdisk-epoch-'));
    t.teardown(async () => {
      await runProgram('umount', ['-l', folder]);
      rmSync(image);
      rmSync(folder, { recursive: true, force: true });
    });
    const image = `${folder}.img`;
    writeFileSync(image, '');
    truncateSync(image, megabytes * 2 ** 20);
    await tool(`mkfs.${kind}`, ['-q', image]);
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
