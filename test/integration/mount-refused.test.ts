/**
 * What cannot be attached, mounted or run says why: the base image that is gone, the file system
 * that is none or has to be repaired; with commands that do what was meant when they are typed.
 */
import { rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import { cannotServe, mountOn } from '../support/mount-guard.js';
import { checkRefusal, EXIT } from '../support/refusal.js';
import { tool } from '../support/run-program.js';

const skip = cannotServe();

async function withFolder(t: Test): Promise<{ daemon: TestDaemon; on: string }> {
  const daemon = await startDaemon(t, { transport: 'kernel' });
  const on = join(daemon.folder, 'on');
  await tool('mkdir', [on]);
  return { daemon, on };
}

t.test('a base image that is gone is named by whatever wants the disk', { skip }, async (t) => {
  const { daemon, on } = await withFolder(t);
  const base = join(daemon.folder, 'base.qcow2');
  await tool('qemu-img', ['create', '-q', '-f', 'qcow2', base, '16M']);
  await daemon.ok('import', base, 'web');
  await daemon.ok('snapshot', 'take', 'web@made');
  await rename(base, `${base}.away`);
  for (const words of [
    ['attach', 'web'],
    ['attach', 'web@made'],
    ['mount', 'web', on],
    ['mount', 'web', on, '--partition', '1'],
    ['run', 'web', '--detach', '--accel', 'tcg'],
    ['reset-identity', 'web'],
  ]) {
    const said = await daemon.cli(words);
    checkRefusal(t, said, [EXIT.notFound], /base\.qcow2: no such file/);
  }
  const cloned = await daemon.cli(['clone', 'web@made', 'two', '--full', '--reset-identity']);
  t.notMatch(cloned.stderr, /no Linux system/, 'a disk that cannot be read is not an empty one');
  const mapped = await daemon.cli(['map', 'web']);
  checkRefusal(t, mapped, [EXIT.notFound], /base\.qcow2: no such file/);
  t.notMatch(mapped.stderr, /no file "web" is here/, 'the VM is there, so no file was meant');
  t.equal(await tool('losetup', ['-j', daemon.rawFile('web')]), '');
  await rename(`${base}.away`, base);
  await daemon.ok('detach', await daemon.ok('attach', 'web', '-q'));
});

t.test('hints name the disk and the snapshot that were asked for', { skip }, async (t) => {
  const { daemon, on } = await withFolder(t);
  await daemon.ok('create', 'web', '--disk', 'root=64M', '--disk', 'data=64M');
  const data = await daemon.ok('path', 'web', '--disk', 'data');
  const input = 'label: gpt\nstart=2048, size=8192\n';
  await tool('sfdisk', ['--quiet', '--no-reread', '--no-tell-kernel', data], { input });
  await daemon.ok('snapshot', 'take', 'web@made');

  const table = await daemon.cli(['mount', 'web@made', on, '--disk', 'data']);
  checkRefusal(t, table, [EXIT.failed]);
  t.match(table.stderr, /mount web@made DIR --disk data --partition N/);
  const empty = await daemon.cli(['mount', 'web', on, '--disk', 'root']);
  checkRefusal(t, empty, [EXIT.failed]);
  t.match(empty.stderr, /layerdisk attach web --disk root/);

  const swap = join(daemon.folder, 'swap.raw');
  await tool('truncate', ['-s', '64M', swap]);
  await tool('mkswap', [swap]);
  await daemon.ok('import', swap, 'swap');
  const none = await daemon.cli(['mount', 'swap', on]);
  checkRefusal(t, none, [EXIT.failed]);
  t.match(none.stderr, /what lies there is no file system/);
});

t.test('a file system to be repaired: not taken for none', { skip }, async (t) => {
  const { daemon, on } = await withFolder(t);
  await daemon.ok('create', 'web', '--disk', '64M');
  const device = await daemon.ok('attach', 'web', '-q');
  await tool('mkfs.ext4', ['-q', device]);
  await mountOn(t, device, on);
  await writeFile(join(on, 'hello'), 'hello');
  await tool('sync', ['--file-system', on]);
  const cut = join(daemon.folder, 'cut.raw');
  await tool('cp', ['--sparse=always', daemon.rawFile('web'), cut]);
  await tool('umount', [on]);
  await daemon.ok('detach', device);

  await daemon.ok('import', cut, 'cut');
  const said = await daemon.cli(['mount', 'cut', on, '--read-only']);
  checkRefusal(t, said, [EXIT.failed]);
  t.match(said.stderr, /its ext4 must be repaired.*clone cut NEW --linked/s);
  await daemon.ok('clone', 'cut', 'new', '--linked');
  t.match(await daemon.ok('mount', 'new', on), /ext4/, 'what the hint says works');
  await daemon.ok('unmount', on);
});
