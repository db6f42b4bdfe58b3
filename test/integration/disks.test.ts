/** Disks of another size as users have them: a file system on a loop device grows and shrinks. */
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { MiB } from '../../src/common/units.js';
import type { VmView } from '../../src/control/protocol.js';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import { cannotServe } from '../support/mount-guard.js';
import { checkRefusal, EXIT } from '../support/refusal.js';
import { tool } from '../support/run-program.js';
import { tempFolder } from '../support/temp-folder.js';

const PAYLOAD = Buffer.alloc(3 * MiB, 'a file on the disk');

async function attach(daemon: TestDaemon): Promise<string> {
  return (await daemon.ok('attach', 'vm')).trim();
}

/** Whether the file on the disk is whole, by way of a real mount. */
async function checkFile(t: Test, device: string, what: string): Promise<void> {
  const folder = tempFolder(t);
  await tool('mount', ['-o', 'ro', device, folder]);
  const found = readFileSync(join(folder, 'file'));
  await tool('umount', [folder]);
  t.ok(found.equals(PAYLOAD), what);
}

t.test('a file system grows and shrinks with its disk', { skip: cannotServe() }, async (t) => {
  const daemon = await startDaemon(t);
  await daemon.ok('create', 'vm', '--disk', '32M');
  const file = daemon.rawFile('vm');
  let device = await attach(daemon);
  await tool('mkfs.ext4', ['-q', device]);
  const folder = tempFolder(t);
  await tool('mount', [device, folder]);
  writeFileSync(join(folder, 'file'), PAYLOAD);
  await tool('umount', [folder]);
  const busy = await daemon.cli(['disk', 'resize', 'vm', 'disk0', '64M']);
  checkRefusal(t, busy, [EXIT.busy], /attached as \/dev\/loop/);
  await daemon.ok('detach', device);
  await daemon.ok('snapshot', 'take', 'vm@small');

  const grown = await daemon.json<VmView>('disk', 'resize', 'vm', 'disk0', '64M');
  t.equal(grown.disks[0]?.size, 64 * MiB);
  t.equal(statSync(file).size, 64 * MiB, 'the file shows it at once');
  t.equal(statSync(daemon.rawFile('vm', 'small')).size, 32 * MiB, 'the snapshot keeps its size');
  device = await attach(daemon);
  await tool('e2fsck', ['-fp', device]);
  await tool('resize2fs', [device]);
  await checkFile(t, device, 'after it grew');
  await tool('resize2fs', ['-M', device]);
  await daemon.ok('detach', device);

  const lost = await daemon.cli(['disk', 'resize', 'vm', 'disk0', '24M']);
  checkRefusal(t, lost, [EXIT.usage], /would be lost/);
  await daemon.ok('disk', 'resize', 'vm', 'disk0', '24M', '--shrink');
  t.equal(statSync(file).size, 24 * MiB);
  device = await attach(daemon);
  await tool('e2fsck', ['-fp', device]);
  await checkFile(t, device, 'after it shrank');
  await daemon.ok('detach', device);

  await daemon.ok('disk', 'resize', 'vm', 'disk0', '64M');
  const bytes = readFileSync(file).subarray(24 * MiB);
  t.ok(bytes.equals(Buffer.alloc(40 * MiB)), 'what was there before is not seen again');
  await daemon.ok('snapshot', 'restore', 'vm@small', '--discard');
  t.equal(statSync(file).size, 32 * MiB, 'restored with its size');
  device = await attach(daemon);
  await checkFile(t, device, 'and its content');
  await daemon.ok('detach', device);
});

t.test('a disk more, and one less', { skip: cannotServe() }, async (t) => {
  const daemon = await startDaemon(t);
  await daemon.ok('create', 'vm', '--disk', '8M');
  t.match(await daemon.ok('disk', 'add', 'vm', 'data=16M'), /added disk data of vm: 16 MiB/);
  const file = daemon.rawFile('vm', undefined, 'data');
  t.equal(statSync(file).size, 16 * MiB);
  writeFileSync(file, PAYLOAD, { flag: 'r+' });
  await daemon.ok('snapshot', 'take', 'vm@two');
  const serial = async () => (await daemon.json<VmView>('info', 'vm')).disks[1]?.serial;
  const known = await serial();
  t.equal((await daemon.ok('disk', 'remove', 'vm', 'data', '-q')).trim(), 'data');
  t.throws(() => statSync(file), { code: 'ENOENT' });
  const only = await daemon.cli(['disk', 'remove', 'vm', 'disk0']);
  checkRefusal(t, only, [EXIT.usage], /the only disk/);
  const none = await daemon.cli(['disk', 'remove', 'vm', 'data']);
  checkRefusal(t, none, [EXIT.notFound], /has no disk "data"/);
  await daemon.ok('snapshot', 'restore', 'vm@two', '--discard');
  t.ok(readFileSync(file).subarray(0, PAYLOAD.length).equals(PAYLOAD), 'it comes back');
  t.equal(await serial(), known, 'and its guest knows it');
});
