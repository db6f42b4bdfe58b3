/** Names, attributes and what may be changed about them, through each channel. */
import {
  chmodSync,
  chownSync,
  closeSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  statfsSync,
  statSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import {
  DISK_SIZE,
  errnoOfCall,
  openFixture,
  overBothChannels,
  readBytes,
  run,
  withFile,
  writeBytes,
} from '../support/channel-fixture.js';
import { cannotMount } from '../support/disk-server.js';

overBothChannels('directories and files are as the namespace says', (t, fixture) => {
  const { mountpoint, disk, snapshot, backing } = fixture;
  t.strictSame(readdirSync(mountpoint), ['web']);
  t.strictSame(readdirSync(join(mountpoint, 'web')).sort(), [
    ...['buggy.raw', 'disk0.raw', 'full.raw', 'snapshots', 'unflushable.raw', 'unreadable.raw'],
    'vm.json',
  ]);
  t.strictSame(readdirSync(join(mountpoint, 'web/snapshots/s1')), ['disk0.raw']);
  t.equal(readFileSync(join(mountpoint, 'web/vm.json'), 'utf8'), '{"name":"web"}\n');
  const { size, mode, nlink, uid, mtimeMs } = statSync(disk);
  t.strictSame(
    { size, mode, nlink, uid, mtimeMs },
    { size: DISK_SIZE, mode: 0o100600, nlink: 1, uid: 0, mtimeMs: 1.6e12 },
  );
  t.equal(statSync(snapshot).mode, 0o100400);
  t.ok(statSync(mountpoint).isDirectory());
  t.equal(statSync(disk).blocks, statSync(backing).blocks, 'space that is taken');
  t.equal(
    errnoOfCall(() => statSync(join(mountpoint, 'nobody'))),
    'ENOENT',
  );
  t.equal(
    errnoOfCall(() => statSync(join(disk, 'below'))),
    'ENOTDIR',
  );
});

overBothChannels('the file system has the sizes that the namespace says', (t, { mountpoint }) => {
  const { bsize, blocks, bfree, bavail } = statfsSync(mountpoint);
  t.strictSame([blocks * bsize, bfree * bsize, bavail * bsize], [2 ** 30, 2 ** 29, 2 ** 29]);
});

overBothChannels('a disk keeps its size, mode and owner', (t, { disk, mountpoint }) => {
  writeBytes(disk, 0, Buffer.from('kept'));
  for (const size of [0, 1, DISK_SIZE - 1, DISK_SIZE + 1, 2 ** 40]) {
    t.equal(
      errnoOfCall(() => truncateSync(disk, size)),
      'EPERM',
      `truncate to ${size}`,
    );
  }
  t.throws(() => run('truncate', '-s', '0', disk), /Operation not permitted/);
  withFile(disk, 'r+', (fd) => {
    t.equal(
      errnoOfCall(() => ftruncateSync(fd, 0)),
      'EPERM',
      'ftruncate',
    );
    t.doesNotThrow(() => ftruncateSync(fd, DISK_SIZE), 'to the size that it has');
  });
  t.doesNotThrow(() => truncateSync(disk, DISK_SIZE));
  t.equal(
    errnoOfCall(() => chmodSync(disk, 0o644)),
    'EPERM',
  );
  t.doesNotThrow(() => chmodSync(disk, 0o600), 'to the mode that it has');
  t.equal(
    errnoOfCall(() => chownSync(disk, 1, 1)),
    'EPERM',
  );
  t.doesNotThrow(() => utimesSync(disk, 1, 1), 'times are accepted');
  t.equal(statSync(disk).mtimeMs, 1.6e12, 'and forgotten');
  t.equal(readBytes(disk, 0, 4).toString(), 'kept');
  t.equal(statSync(disk).size, DISK_SIZE);
  const inDirectory = (name: string) => join(mountpoint, 'web', name);
  t.equal(
    errnoOfCall(() => writeFileSync(inDirectory('new'), '')),
    'EPERM',
    'create',
  );
  t.equal(
    errnoOfCall(() => mkdirSync(inDirectory('new'))),
    'EPERM',
    'mkdir',
  );
  t.equal(
    errnoOfCall(() => unlinkSync(disk)),
    'EPERM',
    'unlink',
  );
  t.equal(
    errnoOfCall(() => renameSync(disk, inDirectory('other'))),
    'EPERM',
    'rename',
  );
});

overBothChannels('opening with O_TRUNC keeps every byte, as on a block device', (t, fixture) => {
  const { disk, directory } = fixture;
  const tail = Buffer.from('the end');
  writeBytes(disk, DISK_SIZE - tail.length, tail);
  closeSync(openSync(disk, 'w'));
  t.equal(statSync(disk).size, DISK_SIZE);
  t.ok(readBytes(disk, DISK_SIZE - tail.length, 100).equals(tail));
  const source = join(directory, 'source');
  writeFileSync(source, Buffer.alloc(5000, 7));
  run('dd', `if=${source}`, `of=${disk}`, 'bs=1000', 'status=none');
  run('cp', source, disk);
  t.ok(readBytes(disk, 0, 5000).equals(Buffer.alloc(5000, 7)), 'dd and cp write from the start');
  t.ok(readBytes(disk, DISK_SIZE - tail.length, 100).equals(tail), 'the rest stays');
});

overBothChannels('a snapshot is read-only, for root too', (t, { snapshot, mountpoint }) => {
  t.equal(
    errnoOfCall(() => openSync(snapshot, 'r+')),
    'EROFS',
  );
  t.equal(
    errnoOfCall(() => openSync(snapshot, 'w')),
    'EROFS',
  );
  t.equal(readBytes(snapshot, 0, 4096).length, 4096);
  const config = join(mountpoint, 'web/vm.json');
  t.equal(readBytes(config, 8, 100).toString(), '"web"}\n');
  t.equal(
    errnoOfCall(() => writeBytes(config, 0, Buffer.from('x'))),
    'EBADF',
    'no disk',
  );
});

overBothChannels('every open is released once', async (t, { disk, snapshot, server }) => {
  for (let round = 0; round < 10; round += 1) {
    for (const path of [disk, snapshot]) withFile(path, 'r', () => {});
  }
  const held = openSync(disk, 'r');
  closeSync(held);
  await server.ask('stop');
  const last = await server.ended;
  t.equal(last?.ended, 'stopped');
  t.equal(last?.counters?.opens, 21);
  t.equal(last?.counters?.releases, 21);
});

overBothChannels(
  'a change below the kernel shows after invalidation',
  async (t, { disk, backing, server }) => {
    const node = { hi: 1, lo: 16 };
    const fd = openSync(disk, 'r');
    t.equal(readBytes(disk, 0, 3).toString(), '\0\0\0');
    writeBytes(backing, 0, Buffer.from('new'));
    t.equal(readBytes(disk, 0, 3).toString(), '\0\0\0', 'cached');
    await server.ask('invalidate', { node });
    t.equal(readBytes(disk, 0, 3).toString(), 'new');
    const gone = await server.ask('invalidate', { node: { hi: 99, lo: 1 } });
    t.equal(gone.error, undefined, 'of what the kernel does not know');
    const entry = await server.ask('invalidateEntry', { parent: { hi: 0, lo: 1 }, name: 'web' });
    t.equal(entry.error, undefined);
    closeSync(fd);
  },
  'cache invalidation',
);

t.test('a thousand names', { skip: cannotMount() ?? false }, async (t) => {
  const { mountpoint, server, directory } = await openFixture(t, 'kernel');
  await server.dispose();
  const path = join(directory, 'disk0.img');
  const disks = Array.from({ length: 1000 }, (_, index) => ({
    vm: `vm-with-a-rather-long-name-${index}`,
    name: 'disk0',
    path,
  }));
  for (const kind of ['kernel', 'fuse-native'] as const) {
    const { server: many } = await openFixture(t, kind, { disks, mountpoint });
    const names = readdirSync(mountpoint);
    t.strictSame(names.sort(), disks.map(({ vm }) => vm).sort(), kind);
    t.equal(run('ls', '-l', mountpoint).split('\n').length, 1002, 'with attributes');
    t.equal(run('find', mountpoint, '-name', 'disk0.raw').split('\n').length, 1001, 'all of it');
    await many.dispose();
  }
});
