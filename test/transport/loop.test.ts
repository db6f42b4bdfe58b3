/** A loop device on a disk: file systems, discard, and what holds the mount. */
import { existsSync, mkdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { openFixture, run } from '../support/channel-fixture.js';
import { CHANNELS, type ChannelKind, cannotMount } from '../support/disk-server.js';

const cannotLoop = existsSync('/dev/loop-control') ? undefined : 'needs loop devices';
const skip = cannotMount() ?? cannotLoop ?? false;

/** Attaches a loop device for the time of a test. */
function attach(t: Test, path: string, ...options: string[]): string {
  const device = run('losetup', '--find', '--show', ...options, path).trim();
  t.teardown(() => {
    if (run('losetup', '--list', '--noheadings', '--output', 'NAME').includes(device)) {
      run('losetup', '--detach', device);
    }
  });
  return device;
}

/** Makes a file system on a disk, uses it, and checks it from outside. */
async function makeFileSystem(t: Test, kind: ChannelKind, options: string[]): Promise<void> {
  const { disk, directory, backing, server } = await openFixture(t, kind);
  const device = attach(t, disk, ...options);
  run('mkfs.ext4', '-q', '-F', device);
  const place = join(directory, 'files');
  mkdirSync(place);
  run('mount', device, place);
  t.teardown(() => {
    if (readFileSync('/proc/self/mountinfo', 'utf8').includes(` ${place} `)) run('umount', place);
  });
  run('dd', 'if=/dev/urandom', `of=${join(place, 'a')}`, 'bs=100k', 'count=20', 'status=none');
  const sum = run('md5sum', join(place, 'a')).split(' ')[0];
  const refused = await server.ask('stop');
  t.equal(refused.error?.code, 'busy', 'not while it is in use');
  t.match(refused.error?.message, device, 'names the device');
  run('umount', place);
  run('fsck.ext4', '-f', '-n', device);
  run('losetup', '--detach', device);
  run('fsck.ext4', '-f', '-n', backing);
  run('mount', '-o', 'loop', disk, place);
  t.equal(run('md5sum', join(place, 'a')).split(' ')[0], sum, 'the file is as it was written');
  run('umount', place);
}

for (const kind of CHANNELS) {
  t.test(`ext4 over a loop device (${kind})`, { skip }, (t) => makeFileSystem(t, kind, []));
  t.test(`ext4 over a direct loop device (${kind})`, { skip }, (t) =>
    makeFileSystem(t, kind, ['--direct-io=on']),
  );
}

t.test('discard through a loop device gives space back', { skip }, async (t) => {
  const { disk, backing, server } = await openFixture(t, 'kernel');
  const device = attach(t, disk);
  run('dd', 'if=/dev/urandom', `of=${device}`, 'bs=1M', 'count=16', 'status=none', 'oflag=direct');
  const before = statSync(backing).blocks;
  run('blkdiscard', '--offset', '0', '--length', '8M', device);
  t.ok(statSync(backing).blocks <= before - (8 * 1024 * 1024) / 512);
  t.ok(((await server.counters()).discards ?? 0) > 0);
  run('blkdiscard', '--zeroout', '--offset', '8M', '--length', '4M', device);
  t.equal(run('cmp', '-n', String(12 * 1024 * 1024), device, '/dev/zero'), '');
});
