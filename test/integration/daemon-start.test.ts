/** Starting, stopping and dying: what is refused, what survives, what is cleaned up. */
import { mkdir, open, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { MiB } from '../../src/common/units.js';
import {
  prepareDaemon,
  runCli,
  startDaemon,
  type TestDaemon,
  TRANSPORTS,
} from '../support/daemon.js';
import { refusalOf } from '../support/gold-store.js';
import { cannotServe, mountOn, mountsBelow } from '../support/mount-guard.js';
import { ReferenceDisk } from '../support/reference-disk.js';
import { checkRefusal, EXIT } from '../support/refusal.js';
import { runProgram } from '../support/run-program.js';
import { stampedPattern } from '../support/stamped-pattern.js';

async function writeAt(path: string, offset: number, data: Buffer): Promise<void> {
  const file = await open(path, 'r+');
  await file.write(data, 0, data.length, offset).finally(() => file.close());
}

async function checkLifeCycle(t: Test, daemon: TestDaemon) {
  const status = await daemon.json<Record<string, unknown>>('daemon', 'status');
  t.match(status, { store: daemon.store, mountpoint: daemon.mountpoint, vms: 0 });
  t.equal(status.transport, daemon.transport);
  t.same(mountsBelow(daemon.folder), [daemon.mountpoint], 'one mount');

  const model = new ReferenceDisk(4 * MiB);
  await daemon.ok('create', 'vm', '--disk', '4M', '--vcpus', '3', '--memory', '2G');
  const path = await daemon.ok('path', 'vm');
  const first = stampedPattern(1, 4000, 100_000);
  await writeAt(path, 4000, first);
  model.write(4000, first);
  const info = await daemon.json<Record<string, unknown>>('info', 'vm');
  t.match(info, { vcpus: 3, memory: 2 * 1024 * MiB });

  await daemon.stop();
  t.same(mountsBelow(daemon.folder), [], 'nothing stays mounted after it stops');
  await daemon.start();
  t.equal(model.difference(await readFile(path)), undefined, 'the data is there again');

  // Nothing was synced: an acknowledged write survives the death of the daemon all the same.
  const second = stampedPattern(2, 1_000_000, 300_000);
  await writeAt(path, 1_000_000, second);
  model.write(1_000_000, second);
  await daemon.kill();
  await daemon.start();
  t.same(mountsBelow(daemon.folder), [daemon.mountpoint], 'the dead mount was replaced');
  t.equal(model.difference(await readFile(path)), undefined, 'and so is what was written last');
  t.match(await daemon.json('info', 'vm'), { vcpus: 3, memory: 2 * 1024 * MiB });
}

async function checkStopWhileUsed(t: Test, daemon: TestDaemon) {
  await daemon.ok('create', 'used', '--disk', '1M');
  const device = await daemon.ok('attach', 'used');
  const result = await daemon.cli(['daemon', 'stop']);
  checkRefusal(t, result, [EXIT.busy], /loop|used|held/);
  await daemon.ok('daemon', 'status');
  await daemon.ok('detach', device);
  await daemon.ok('daemon', 'stop');
  t.same(mountsBelow(daemon.folder), []);
}

for (const transport of TRANSPORTS) {
  t.test(`over the ${transport} channel`, { skip: cannotServe() }, async (t) => {
    const daemon = await startDaemon(t, { transport });
    await t.test('a life with a stop and a crash', (t) => checkLifeCycle(t, daemon));
    await t.test('it does not stop under a user', (t) => checkStopWhileUsed(t, daemon));
  });
}

t.test('what it refuses to start on', { skip: cannotServe() }, async (t) => {
  const running = await startDaemon(t);
  const { folder } = running;
  const file = join(folder, 'file');
  await writeFile(file, 'just a file');
  await mkdir(join(folder, 'foreign'));
  await writeFile(join(folder, 'foreign', 'store.json'), '{"format":"something else"}');
  const busy = join(folder, 'busy');
  await mountOn(t, 'tmpfs', busy, ['-t', 'tmpfs']);

  await mkdir(join(folder, 'new'));
  await symlink('new', join(folder, 'link'));
  const over = (store: string, mountpoint: string) => ({
    store: join(folder, store),
    mountpoint: join(folder, mountpoint),
  });
  const rows = [
    ['the same store', { store: running.store }, ['busy', 'exists']],
    ['the same socket', { socket: running.socket }, ['busy', 'exists']],
    ['a socket path that is a file', { socket: file }, ['exists', 'failed']],
    ['a socket path that is too long', { socket: join(folder, 'x'.repeat(120)) }, ['usage']],
    ['a store that is a file', { store: file }, ['failed', 'exists', 'usage', 'not-permitted']],
    ['a store that is something else', { store: join(folder, 'foreign') }, ['damaged']],
    ['a mount point that is a file', { mountpoint: file }, ['failed', 'exists', 'usage']],
    ['a mount point in use', { mountpoint: busy }, ['busy', 'exists']],
    ['a mount point over the manifests', over('new', 'new/vms'), ['usage']],
    ['a mount point below a link to the store', over('link', 'new/vms/m'), ['usage']],
    ['a mount point over the store', over('new', 'new'), ['usage']],
    [
      'a mount point over its socket',
      { socket: join(folder, 'm/s'), mountpoint: join(folder, 'm') },
      ['usage'],
    ],
    ['more threads than it takes', { args: ['--threads', '33'] }, ['usage']],
    ['the mount point of another', { mountpoint: running.mountpoint }, ['busy', 'exists']],
  ] as const;
  for (const [name, options, codes] of rows) {
    await t.test(name, async (t) => {
      const error = await refusalOf(await prepareDaemon(t, options));
      t.ok(
        codes.some((code) => code === error.code),
        `${error.code}: ${error.message}`,
      );
      t.match(error.message, /^\S[^\n]*$/, 'one line');
      t.match(error.hint, /^\S[^\n]*$/, 'and a hint');
    });
  }
  t.equal(await running.ok('list', '-q'), '', 'the running one is as well as before');
});

t.test('on a mount that does not answer', { skip: cannotServe() }, async (t) => {
  const stuck = await startDaemon(t);
  process.kill(stuck.pid, 'SIGSTOP');
  t.teardown(() => process.kill(stuck.pid, 'SIGCONT'));
  for (const supervise of [false, true]) {
    const { mountpoint } = stuck;
    const error = await refusalOf(await prepareDaemon(t, { mountpoint, supervise }));
    t.equal(error.code, 'busy');
    t.match(error.message, /does not answer/);
  }
  process.kill(stuck.pid, 'SIGCONT');
});

t.test('through the command line', { skip: cannotServe() }, async (t) => {
  const daemon = await prepareDaemon(t);
  const places = ['--store', daemon.store, '--socket', daemon.socket];
  const start = ['daemon', 'start', ...places, '--mountpoint', daemon.mountpoint];
  const pigeon = await runCli([...start, '--transport', 'pigeon']);
  checkRefusal(t, pigeon, [EXIT.usage], /pigeon/);
  checkRefusal(t, await runCli([...start, '--threads', '0']), [EXIT.usage], /threads/);
  const started = await runCli(start);
  t.equal(started.code, 0, started.stderr);
  t.teardown(() => runCli(['daemon', 'stop', ...places]));
  t.match(await runCli(['daemon', 'status', ...places]), { code: 0 });
  checkRefusal(t, await runCli(start), [EXIT.exists, EXIT.busy], /daemon/);
  const other = join(daemon.folder, 'other.sock');
  const second = ['daemon', 'start', '--store', daemon.store, '--socket', other];
  const refused = await runCli([...second, '--mountpoint', join(daemon.folder, 'other')]);
  checkRefusal(t, refused, [EXIT.exists, EXIT.busy], /store|daemon/);
  t.match(await runCli(['daemon', 'stop', ...places]), { code: 0 });
  t.same(mountsBelow(daemon.folder), [], 'stopped means unmounted');
  const left = await runProgram('pgrep', ['-f', daemon.store]);
  t.equal(left.stdout, '', 'and no process stays');
});

for (const how of [[], ['--no-supervise']]) {
  t.test(`in the foreground ${how.join()}`, { skip: cannotServe() }, async (t) => {
    const daemon = await prepareDaemon(t);
    const places = ['--store', daemon.store, '--socket', daemon.socket];
    const stop = () => runCli(['daemon', 'stop', ...places]);
    t.teardown(stop);
    const start = ['daemon', 'start', ...places, '--mountpoint', daemon.mountpoint, ...how];
    let isOver = false;
    const running = runCli([...start, '--foreground']).finally(() => {
      isOver = true;
    });
    const status = () => runCli(['daemon', 'status', ...places]);
    while (!isOver && (await status()).code !== 0);
    t.same(mountsBelow(daemon.folder), [daemon.mountpoint]);
    const other = ['--store', daemon.store, '--socket', join(daemon.folder, 'other.sock')];
    const second = await runCli(['daemon', 'start', ...other, '--foreground', ...how]);
    t.equal(second.code, EXIT.busy, 'a second one says why it does not start, last');
    t.match(second.stderr, /\nlayerdisk: the store .* is in use by process \d+.*\nhint: .*\n$/);
    t.match(await stop(), { code: 0 });
    t.match(await running, { code: 0, stderr: /mounted/ });
    t.same(mountsBelow(daemon.folder), [], 'stopped means unmounted');
  });
}
