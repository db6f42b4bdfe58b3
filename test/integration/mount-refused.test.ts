/** What cannot be attached, mounted or run says why: the base image that is gone. */
import { rename } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import { cannotServe } from '../support/mount-guard.js';
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
