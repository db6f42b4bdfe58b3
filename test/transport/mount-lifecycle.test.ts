/** Mounting, unmounting, and everything that can get in the way of either. */
import { execFileSync, spawn } from 'node:child_process';
import {
  closeSync,
  existsSync,
  openSync,
  readSync,
  renameSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { errnoOfCall, openFixture, readBytes, run } from '../support/channel-fixture.js';
import {
  CHANNELS,
  type ChannelKind,
  cannotMount,
  DiskServer,
  isMounted,
  type ServerConfig,
  temporaryDirectory,
} from '../support/disk-server.js';

const skip = cannotMount() ?? false;

/** A directory with one backing file, and the configuration of a server for it. */
function prepare(t: Test, kind: ChannelKind): { directory: string; config: ServerConfig } {
  const { path: directory, remove } = temporaryDirectory();
  t.teardown(remove);
  const path = join(directory, 'disk0.img');
  writeFileSync(path, Buffer.alloc(1024 * 1024, 0x61));
  const disks = [{ vm: 'web', name: 'disk0', path }];
  return { directory, config: { kind, mountpoint: join(directory, 'mnt'), disks } };
}

async function start(t: Test, config: ServerConfig): Promise<DiskServer> {
  const server = await DiskServer.start(config);
  t.teardown(() => server.dispose());
  return server;
}

/** What a server that must not come up says. */
async function refusal(t: Test, config: ServerConfig) {
  const { server, first } = await DiskServer.launch(config);
  t.teardown(() => server.dispose());
  await server.ended;
  return first.error;
}

const diskOf = ({ mountpoint }: ServerConfig) => join(mountpoint, 'web/disk0.raw');

for (const kind of CHANNELS) {
  t.test(`unmounted from outside (${kind})`, { skip }, async (t) => {
    const { config } = prepare(t, kind);
    const server = await start(t, config);
    run('umount', config.mountpoint);
    t.equal((await server.ended)?.ended, 'unmounted');
    t.equal(server.child.exitCode, 0, 'the server ends in order');
  });

  t.test(`stopped while somebody uses it (${kind})`, { skip }, async (t) => {
    const { config } = prepare(t, kind);
    const server = await start(t, config);
    const fd = openSync(diskOf(config), 'r');
    const sleeper = spawn('sleep', ['1000'], { cwd: join(config.mountpoint, 'web') });
    t.teardown(() => sleeper.kill());
    const { error } = await server.ask('stop');
    t.equal(error?.code, 'busy');
    t.match(error?.message, `(pid ${process.pid})`, 'an open file');
    t.match(error?.message, `sleep (pid ${sleeper.pid})`, 'a working directory');
    t.equal(readBytes(diskOf(config), 0, 1)[0], 0x61, 'it goes on');
    const holders = (await server.ask('holders')).result as { how: string }[];
    t.ok(holders.some(({ how }) => how === 'working directory'));
    closeSync(fd);
    sleeper.kill();
    await new Promise((resolve) => sleeper.once('close', resolve));
    t.equal((await server.ask('stop')).error, undefined);
    t.equal((await server.ended)?.ended, 'stopped');
    t.notOk(isMounted(config.mountpoint));
  });

  t.test(`stopped by force (${kind})`, { skip }, async (t) => {
    const { config } = prepare(t, kind);
    const server = await start(t, config);
    const fd = openSync(diskOf(config), 'r');
    await server.ask('force');
    t.equal((await server.ended)?.ended, 'stopped');
    t.notOk(isMounted(config.mountpoint));
    const errno = errnoOfCall(() => readSync(fd, Buffer.alloc(10), 0, 10, 0));
    t.match(errno, /^(ENOTCONN|ECONNABORTED|ENODEV|EIO)$/);
    errnoOfCall(() => closeSync(fd)); // The kernel says ENOTCONN, and closes.
  });

  t.test(`killed, and started again (${kind})`, { skip }, async (t) => {
    const { config, directory } = prepare(t, kind);
    const first = await start(t, config);
    first.child.kill('SIGKILL');
    await first.ended;
    t.equal(
      errnoOfCall(() => readBytes(diskOf(config), 0, 1)),
      'ENOTCONN',
      'a dead mount',
    );
    symlinkSync(directory, join(directory, 'link'));
    const second = await start(t, { ...config, mountpoint: join(directory, 'link/mnt') });
    t.equal(readBytes(diskOf(config), 0, 1)[0], 0x61);
    await second.ask('stop');
    t.notOk(isMounted(config.mountpoint), 'no mount is left below');
  });

  t.test(`mountpoints that will not do (${kind})`, { skip }, async (t) => {
    const { config, directory } = prepare(t, kind);
    await start(t, config);
    const second = await refusal(t, config);
    t.equal(second?.code, 'busy');
    t.match(second?.message, /another layerdisk/);
    t.match(await refusal(t, { ...config, mountpoint: directory }), {
      code: 'exists',
      message: /not empty/,
    });
    t.match(await refusal(t, { ...config, mountpoint: config.disks[0]?.path ?? '' }), {
      code: 'usage',
      message: /not a directory/,
    });
    const deep = await start(t, { ...config, mountpoint: join(directory, 'a/b') });
    t.equal(readBytes(join(directory, 'a/b/web/disk0.raw'), 0, 1)[0], 0x61, 'made as needed');
    await deep.ask('stop');
  });

  t.test(`another mount on top (${kind})`, { skip }, async (t) => {
    const { config } = prepare(t, kind);
    const server = await start(t, config);
    run('mount', '-t', 'tmpfs', 'tmpfs', config.mountpoint);
    t.match((await server.ask('stop')).error, { code: 'busy', message: /mounted over it/ });
    t.ok(run('findmnt', '-n', '-o', 'FSTYPE', config.mountpoint).includes('tmpfs'), 'still there');
    run('umount', config.mountpoint);
    t.equal((await server.ask('stop')).error, undefined);
  });
}

t.test('unmounted lazily while a file is open', { skip }, async (t) => {
  const { config } = prepare(t, 'kernel');
  const server = await start(t, config);
  const fd = openSync(diskOf(config), 'r');
  run('umount', '-l', config.mountpoint);
  const target = Buffer.alloc(10);
  t.equal(readSync(fd, target, 0, 10, 0), 10, 'whoever has it open can go on');
  t.match((await server.ask('stop')).error, { code: 'busy', message: /still open/ });
  closeSync(fd);
  t.equal((await server.ended)?.ended, 'unmounted', 'the last one ends the server');
});

t.test('a folder above it was renamed', { skip }, async (t) => {
  const { directory, config } = prepare(t, 'kernel');
  const [above, renamed] = [join(directory, 'above'), join(directory, 'renamed')];
  const server = await start(t, { ...config, mountpoint: join(above, 'mnt') });
  const fd = openSync(join(above, 'mnt/web/disk0.raw'), 'r');
  renameSync(above, renamed);
  t.teardown(() => isMounted(join(renamed, 'mnt')) && run('umount', '-l', join(renamed, 'mnt')));
  const { error } = await server.ask('stop');
  t.match(error, { code: 'busy', message: `${renamed}/mnt is in use by` });
  t.match(error?.message, `(pid ${process.pid})`);
  t.equal(readSync(fd, Buffer.alloc(10), 0, 10, 0), 10, 'it goes on');
  closeSync(fd);
  t.equal((await server.ask('stop')).error, undefined);
  t.equal((await server.ended)?.ended, 'stopped');
  t.notOk(isMounted(join(renamed, 'mnt')), 'nothing stays mounted');
});

t.test('I/O goes on while the main thread is busy', { skip }, async (t) => {
  const { server, disk, directory } = await openFixture(t, 'kernel');
  const fd = openSync(disk, 'r+');
  const blocked = server.ask('block', { until: join(directory, 'go') });
  const target = Buffer.alloc(1024 * 1024);
  t.equal(readSync(fd, target, 0, target.length, 0), target.length);
  writeFileSync(join(directory, 'go'), '');
  await blocked;
  closeSync(fd);
});

t.test('an I/O thread that dies is replaced', { skip }, async (t) => {
  const { config } = prepare(t, 'kernel');
  const disks = config.disks.map((disk) => ({ ...disk, crashes: 3 }));
  const server = await start(t, { ...config, disks });
  const read = () => readBytes(diskOf(config), 0, 1)[0];
  let failures = 0;
  while (failures < 4 && errnoOfCall(read) === 'EIO') failures += 1;
  t.ok(failures >= 1 && failures <= 3, 'its request fails');
  t.equal(read(), 0x61, 'later ones do not');
  t.equal((await server.counters()).crashes, 3);
});

t.test('threads that keep dying end the mount', { skip }, async (t) => {
  const { config } = prepare(t, 'kernel');
  const disks = config.disks.map((disk) => ({ ...disk, crashes: 1000 }));
  const server = await start(t, { ...config, disks });
  let errno: string | undefined = 'EIO';
  for (let round = 0; round < 20 && errno === 'EIO'; round += 1) {
    errno = errnoOfCall(() => readBytes(diskOf(config), 0, 1));
  }
  t.match(errno, /^(ENOTCONN|ECONNABORTED|ENODEV|ENOENT)$/, 'readers get errors');
  t.equal((await server.ended)?.ended, 'failed');
  t.notOk(isMounted(config.mountpoint));
});

/** Debian's "nobody"; any user without privileges would do. */
const NOBODY = 65534;

/** Why an unprivileged mount can't be tried; undefined when it can. */
function cannotMountAsUser(): string | undefined {
  const needed = ['/usr/bin/fusermount3', '/bin/fusermount3'];
  if (!needed.some((path) => existsSync(path))) return 'needs fusermount3';
  if ((statSync('/dev/fuse').mode & 0o006) !== 0o006) return '/dev/fuse is closed to users';
  try {
    const script = join(import.meta.dirname, '../support/serve-disks.mjs');
    execFileSync('cat', [script], { uid: NOBODY, stdio: 'ignore' });
  } catch {
    return 'user nobody cannot read the project';
  }
  return undefined;
}

t.test('mounted by a user', { skip: skip || (cannotMountAsUser() ?? false) }, async (t) => {
  const { config, directory } = prepare(t, 'kernel');
  run('chown', '-R', String(NOBODY), directory);
  const user = { ...config, uid: NOBODY, allowOther: false };
  const server = await start(t, user);
  const asUser = (program: string, ...parameters: string[]) =>
    execFileSync(program, parameters, { uid: NOBODY, gid: NOBODY, encoding: 'utf8' });
  const disk = diskOf(config);
  t.equal(asUser('head', '-c', '3', disk), 'aaa');
  asUser('dd', 'if=/dev/zero', `of=${disk}`, 'bs=64k', 'count=4', 'conv=notrunc', 'status=none');
  t.equal(readBytes(config.disks[0]?.path ?? '', 0, 1)[0], 0, 'written');
  t.equal(
    errnoOfCall(() => readBytes(disk, 0, 1)),
    'EACCES',
    'not even for root',
  );

  server.child.kill('SIGKILL');
  await server.ended;
  const second = await start(t, user);
  t.equal(asUser('head', '-c', '1', disk), '\0', 'a dead mount is cleared');
  const script = 'cd "$0" && echo there && exec sleep 1000';
  const sleeper = spawn('sh', ['-c', script, config.mountpoint], { uid: NOBODY, gid: NOBODY });
  await new Promise((resolve) => sleeper.stdout.once('data', resolve));
  t.teardown(() => sleeper.kill());
  t.match((await second.ask('stop')).error, { code: 'busy', message: `(pid ${sleeper.pid})` });
  sleeper.kill();
  await new Promise((resolve) => sleeper.once('close', resolve));
  t.equal((await second.ask('stop')).error, undefined);
  t.equal((await second.ended)?.ended, 'stopped');
  t.notOk(isMounted(config.mountpoint));

  const refused = await refusal(t, { ...user, allowOther: true });
  if (refused !== undefined) {
    t.match(refused, { code: 'not-permitted', hint: /user_allow_other/ });
  }
});
