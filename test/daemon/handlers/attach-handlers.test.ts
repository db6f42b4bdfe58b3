/**
 * Loop devices and mounts on the host's own kernel: found again, refused while in use, gone when we
 * say so.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { DiskError } from '../../../src/common/errors.js';
import { MiB } from '../../../src/common/units.js';
import { listLoopDevices } from '../../../src/host/loop-devices.js';
import { LoopWorld, noLoopDevices, run } from '../../support/loop-world.js';
import { elsewhere } from '../../support/mount-namespace.js';
import { eventually } from '../../support/takeover.js';

const skip = noLoopDevices();

async function open(t: Test): Promise<LoopWorld> {
  const world = await LoopWorld.create();
  t.teardown(() => world.destroy());
  await world.vms.create('web');
  return world;
}

function loopsIn(world: LoopWorld): string[] {
  return listLoopDevices()
    .filter((loop) => loop.file.startsWith(world.folder))
    .map((loop) => loop.device);
}

/** The error that a promise rejects with, in one line: `code: message | hint`. */
async function errorOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof DiskError) return `${error.code}: ${error.message} | ${error.hint}`;
    throw error;
  }
  return 'ok';
}

t.test('attach and detach', { skip }, async (t) => {
  const world = await open(t);
  const { handlers } = world;
  const path = await world.expose('web', undefined, 4 * MiB);
  const { device, readOnly } = await handlers.attach({ vm: 'web' });
  t.notOk(readOnly);
  t.same(loopsIn(world), [device]);
  t.same(
    await handlers.attach({ vm: 'web' }),
    { device, path, readOnly: false, already: true },
    'again: the same',
  );
  t.match(
    await errorOf(handlers.attach({ vm: 'web', readOnly: true })),
    `busy: ${path} is already attached, as ${device} | layerdisk detach ${device}`,
  );

  t.comment('whoever changes the disk below is refused');
  await world.vms.service.takeSnapshot('web', { name: 'first' });
  const restore = world.vms.service.restoreSnapshot('web', { snapshot: 'first', discard: true });
  t.match(await errorOf(restore), `busy: cannot restore "web@first": it is attached as ${device}`);
  t.match(await errorOf(world.vms.service.delete('web')), /^busy: cannot delete "web"/);
  t.match(await errorOf(world.vms.service.rename('web', 'new')), /^busy: cannot rename "web"/);

  t.comment('written data is in the file after the detach');
  writeFileSync(device, Buffer.alloc(65536, 'x'));
  t.same(await handlers.detach({ target: { vm: 'web' } }), { devices: [device] });
  t.same(loopsIn(world), []);
  t.ok(readFileSync(path).subarray(0, 65536).equals(Buffer.alloc(65536, 'x')));
  t.same(world.flushed, [world.vms.manifest('web').disks[0]?.head]);
  t.match(
    await errorOf(handlers.detach({ target: { vm: 'web' } })),
    /^not-found: .* is not attached/,
  );
  t.equal(await errorOf(world.vms.service.rename('web', 'new')), 'ok');
});

t.test('mounted in another mount namespace', { skip }, async (t) => {
  const world = await open(t);
  const { handlers } = world;
  await world.expose('web', undefined, 4 * MiB);
  const { device } = await handlers.attach({ vm: 'web' });
  run('mkfs.ext4', '-q', device);
  const directory = await world.directory('guest');
  await handlers.mount({ vm: 'web', directory });
  const end = await elsewhere(t, { keepLoops: true });
  await handlers.unmount({ directory });
  t.match(
    await errorOf(handlers.detach({ device })),
    new RegExp(
      `^busy: ${device} is still mounted for sleep \\(pid \\d+\\), which has mounts of its own, ` +
        `at ${directory} \\| end that program, or: nsenter --mount --target \\d+ umount`,
    ),
  );
  await end();
  await eventually('gone with its last user', async () => loopsIn(world).length === 0 || undefined);
});

t.test('a snapshot is attached read-only, by device detached', { skip }, async (t) => {
  const world = await open(t);
  await world.vms.take('web', 'first');
  await world.expose('web', 'first', 4 * MiB);
  const { device, readOnly } = await world.handlers.attach({ vm: 'web', snapshot: 'first' });
  t.ok(readOnly);
  t.throws(() => writeFileSync(device, 'x'), 'the kernel refuses to write');
  const removal = world.vms.service.deleteSnapshot('web', 'first');
  t.match(await errorOf(removal), /^busy: cannot delete "web@first": it is attached/);
  t.same(await world.handlers.detach({ device }), { devices: [device] });
  t.match(await errorOf(world.handlers.detach({ device })), /^not-found: no disk of layerdisk/);
});

t.test('a device in use is not detached', { skip }, async (t) => {
  const world = await open(t);
  await world.expose('web', undefined, 4 * MiB);
  const { device } = await world.handlers.attach({ vm: 'web' });
  const reader = spawn('sh', ['-c', `exec 3<${device}; echo ready; exec sleep 60`]);
  t.teardown(() => reader.kill());
  await once(reader.stdout, 'data');
  t.match(
    await errorOf(world.handlers.detach({ device })),
    `busy: ${device} is in use by sleep (pid ${reader.pid})`,
  );
  reader.kill();
  await once(reader, 'exit');
  t.same(await world.handlers.detach({ device }), { devices: [device] });
});

t.test('who looks at a device for a moment does not keep it', { skip }, async (t) => {
  const world = await open(t);
  await world.expose('web', undefined, 4 * MiB);
  const { device } = await world.handlers.attach({ vm: 'web' });
  const looker = spawn('sh', ['-c', `exec 3<${device}; echo ready; exec sleep 0.2`]);
  t.teardown(() => looker.kill());
  await once(looker.stdout, 'data');
  t.same(await world.handlers.detach({ device }), { devices: [device] });
});

t.test('mount and unmount', { skip }, async (t) => {
  const world = await open(t);
  const { handlers } = world;
  const path = await world.expose('web', undefined, 8 * MiB);
  const directory = await world.directory('a');
  t.match(
    await errorOf(handlers.mount({ vm: 'web', directory })),
    /^failed: cannot mount .*wrong fs type.*is there a file system/s,
    'nothing to mount',
  );
  t.same(loopsIn(world), [], 'and no device is left');
  run('mkfs.ext4', '-q', '-F', path);
  const view = await handlers.mount({ vm: 'web', directory });
  t.same(view, { directory, device: view.device, source: view.device, fileSystem: 'ext4' });
  t.same(loopsIn(world), [view.device]);
  writeFileSync(join(directory, 'file'), 'hello');
  t.match(await errorOf(handlers.mount({ vm: 'web', directory })), /^busy: .* already mounted at/);

  t.comment('a second mount shows the same file system, not a second copy of it');
  const second = await world.directory('b');
  await handlers.mount({ vm: 'web', directory: second });
  t.equal(readFileSync(join(second, 'file'), 'utf8'), 'hello');
  t.equal(loopsIn(world).length, 1);
  t.match(
    await errorOf(handlers.detach({ device: view.device })),
    /^busy: .* is mounted at .*layerdisk unmount/,
  );
  const third = await world.directory('c');
  t.match(
    await errorOf(handlers.mount({ vm: 'web', directory: third, readOnly: true })),
    new RegExp(`^busy: ${view.device} is already mounted for writing at ${directory}`),
    'nor is it mounted read-only beside that',
  );
  await handlers.unmount({ directory: second });
  t.equal(loopsIn(world).length, 1, 'the device stays for the first mount');

  t.comment('busy while somebody is in it, named');
  const sitter = spawn('sh', ['-c', 'echo ready; exec sleep 60'], { cwd: directory });
  t.teardown(() => sitter.kill());
  await once(sitter.stdout, 'data');
  t.match(
    await errorOf(handlers.unmount({ directory })),
    new RegExp(`^busy: .* is in use by (sh|sleep) \\(pid ${sitter.pid}\\)`),
  );
  sitter.kill();
  await once(sitter, 'exit');
  await handlers.unmount({ directory });
  t.same(loopsIn(world), [], 'the device is gone when unmount answers');
  t.match(await errorOf(handlers.unmount({ directory })), /^not-found/);
  t.match(await errorOf(handlers.unmount({ directory: '/proc' })), /^not-found/, 'a foreign mount');
});

t.test('partitions', { skip }, async (t) => {
  const world = await open(t);
  const { handlers } = world;
  const path = await world.expose('web', undefined, 32 * MiB);
  const table = spawn('sfdisk', ['-q', path]);
  table.stdin.end('label: gpt\nsize=8MiB\nsize=16MiB\n');
  await once(table, 'exit');
  run('mkfs.ext4', '-q', '-F', '-E', `offset=${9 * MiB}`, path, '16M');
  const directory = await world.directory('a');
  t.match(
    await errorOf(handlers.mount({ vm: 'web', directory })),
    /^failed: .*it has partitions 1, 2: layerdisk mount web DIR --partition N$/s,
  );
  t.match(
    await errorOf(handlers.mount({ vm: 'web', disk: 'disk0', directory })),
    /: layerdisk mount web DIR --disk disk0 --partition N$/,
    'a disk that must be named is named in the hint',
  );
  t.match(
    await errorOf(handlers.mount({ vm: 'web', directory, partition: 3 })),
    /^not-found: .* has no partition 3 \| it has: 1, 2/,
  );
  await handlers.mount({ vm: 'web', directory, partition: 2 });
  writeFileSync(join(directory, 'file'), 'in the second');
  await handlers.unmount({ directory });
  t.same(loopsIn(world), []);

  t.comment('through the device of an attached disk');
  const { device } = await handlers.attach({ vm: 'web' });
  await handlers.mount({ vm: 'web', directory, partition: 2 });
  t.equal(readFileSync(join(directory, 'file'), 'utf8'), 'in the second');
  t.match(await errorOf(handlers.detach({ device })), /^busy: /);
  t.match(
    await errorOf(world.vms.service.delete('web')),
    /^busy: cannot delete "web": it is (attached|mounted)/,
  );
  await handlers.unmount({ directory });
  t.same(loopsIn(world), [device], 'the attachment stays');
  await handlers.detach({ device });
});

t.test('the flush before a snapshot', { skip }, async (t) => {
  const world = await open(t);
  const path = await world.expose('web', undefined, 8 * MiB);
  run('mkfs.ext4', '-q', '-F', path);
  const directory = await world.directory('a');
  await world.handlers.mount({ vm: 'web', directory });
  writeFileSync(join(directory, 'file'), 'still in the page cache only');
  const flushed = await world.users.flush('web', [{ file: 'disk0.raw' }]);
  t.equal(flushed.consistency, 'consistent');
  t.ok(readFileSync(path).includes('still in the page cache only'), 'everything is in the file');

  t.comment('the file system stands still until the release');
  await world.vms.take('web', 'first');
  const frozen = await world.expose('web', 'first', 8 * MiB);
  writeFileSync(frozen, readFileSync(path));
  const writer = spawn('sh', ['-c', `echo later > ${join(directory, 'late')}; echo done`]);
  t.teardown(() => writer.kill('SIGKILL'));
  const done = once(writer.stdout, 'data');
  await flushed.release();
  await done;

  t.comment('so what was copied meanwhile mounts read-only, without any repair');
  const second = await world.directory('b');
  await world.handlers.mount({ vm: 'web', snapshot: 'first', directory: second });
  t.equal(readFileSync(join(second, 'file'), 'utf8'), 'still in the page cache only');
  t.throws(() => readFileSync(join(second, 'late')), { code: 'ENOENT' });
  await world.handlers.unmount({ directory: second });

  t.comment('one that was in use can only be repaired elsewhere');
  writeFileSync(frozen, readFileSync(path));
  t.match(
    await errorOf(world.handlers.mount({ vm: 'web', snapshot: 'first', directory: second })),
    /^failed: .*read-only.*layerdisk clone web@first NEW --linked/s,
  );
  const failed = await world.users.flush('web', [{ file: 'gone.raw' }]);
  t.match(failed.consistency, /^crash-consistent: cannot flush .*gone.raw/);
  await failed.release();
  writeFileSync(join(directory, 'again'), 'thawed');
  t.equal((await world.users.flush('web', [])).consistency, 'consistent', 'nothing is open');
  await world.handlers.unmount({ directory });
});

t.test('a file system thaws when nobody releases it', { skip }, async (t) => {
  const world = await open(t);
  const path = await world.expose('web', undefined, 8 * MiB);
  run('mkfs.ext4', '-q', '-F', path);
  const directory = await world.directory('a');
  await world.handlers.mount({ vm: 'web', directory });

  t.comment('the process that froze it dies');
  const module = new URL('../../../src/daemon/handlers/frozen-mount.ts', import.meta.url).href;
  const code = `const { freezeMount } = await import('${module}');
    await freezeMount('${directory}'); process.kill(process.pid, 'SIGKILL');`;
  const dying = spawn(process.execPath, [...process.execArgv, '--input-type=module', '-e', code]);
  await once(dying, 'exit');
  t.equal(dying.signalCode, 'SIGKILL');
  writeFileSync(join(directory, 'file'), 'can be written');

  t.comment('one that this process writes to is not frozen at all');
  const { openSync, closeSync } = await import('node:fs');
  const fd = openSync(join(directory, 'file'), 'r');
  const flushed = await world.users.flush('web', [{ file: 'disk0.raw' }]);
  writeFileSync(join(directory, 'other'), 'not held up');
  closeSync(fd);
  t.equal(flushed.consistency, 'consistent');
  await flushed.release();
  await world.handlers.unmount({ directory });
});

t.test('where nothing can be mounted', { skip }, async (t) => {
  const world = await open(t);
  const path = await world.expose('web', undefined, 4 * MiB);
  const { handlers } = world;
  symlinkSync(join(world.folder, 'store', 'deltas'), join(world.folder, 'link'));
  const bad: [directory: string, code: RegExp][] = [
    [join(world.folder, 'nowhere'), /^not-found: .*no such directory/],
    [path, /^usage: .* belongs to layerdisk itself/],
    ['/etc/passwd', /^usage: .* is not a directory/],
    [join(world.folder, 'store'), /^usage: .* a mount there would hide .*store/],
    [join(world.folder, 'store', 'vms'), /^usage: .* belongs to layerdisk itself/],
    [world.folder, /^usage: .* a mount there would hide/],
    [join(world.folder, 'link'), /^usage: .*link belongs to layerdisk itself/],
  ];
  for (const [directory, expected] of bad) {
    t.match(await errorOf(handlers.mount({ vm: 'web', directory })), expected, directory);
  }
  t.match(await errorOf(handlers.attach({ vm: 'none' })), /^not-found: there is no VM "none"/);
  t.match(
    await errorOf(handlers.attach({ vm: 'web', disk: 'x' })),
    /^not-found: .*has no disk "x"/,
  );
  t.match(await errorOf(handlers.detach({ device: '/dev/null' })), /^not-found/);
});
