/** Images that lie inside a disk of the daemon that is to stand a VM on them. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { startDaemon } from '../support/daemon.js';
import { noLoopDevices } from '../support/loop-world.js';
import { cannotServe } from '../support/mount-guard.js';
import { checkRefusal, EXIT } from '../support/refusal.js';
import { tool } from '../support/run-program.js';

t.test('an image in a mounted disk', { skip: cannotServe() || noLoopDevices() }, async (t) => {
  const daemon = await startDaemon(t);
  await daemon.ok('create', 'outer', '--disk', '16M');
  await tool('mkfs.ext4', ['-q', '-F', daemon.rawFile('outer')]);
  const on = join(daemon.folder, 'on');
  await mkdir(on);
  await daemon.ok('mount', 'outer', on);
  const image = join(on, 'inner.qcow2');
  await tool('qemu-img', ['create', '-q', '-f', 'qcow2', image, '1M']);
  const child = join(daemon.folder, 'child.qcow2');
  const backing = ['-b', image, '-F', 'qcow2'];
  await tool('qemu-img', ['create', '-q', '-f', 'qcow2', ...backing, child]);
  // Its I/O threads would wait for each other, and every disk with them.
  const refused = [
    ['import', image, 'inner'],
    ['import', child, 'inner', '--allow-folder', on],
  ];
  for (const args of refused) {
    const result = await daemon.cli(args);
    checkRefusal(t, result, [EXIT.notSupported], /on\/inner\.qcow2 lies in .*outer\/disk0\.raw/);
    t.match(result.stderr, /hint: .*--copy/);
  }
  await daemon.ok('import', image, 'copied', '--copy');
  await tool('cp', [image, join(daemon.folder, 'inner.qcow2')]);
  await daemon.ok('import', join(daemon.folder, 'inner.qcow2'), 'beside');
  await daemon.ok('unmount', on);
});
