/** `layerdisk events` beside other commands: exactly what they change, in order, until the end. */
import { spawn } from 'node:child_process';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { MiB } from '../../src/common/units.js';
import type { EventView } from '../../src/control/protocol.js';
import { freeSpace } from '../../src/storage/free-space.js';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import { noLoopDevices } from '../support/loop-world.js';
import { cannotServe, scratchFileSystem } from '../support/mount-guard.js';
import { cleanEnvironment, PROJECT, tool } from '../support/run-program.js';
import { cannotTakeOver, eventually } from '../support/takeover.js';
import { tempFolder } from '../support/temp-tree.js';
import { tool as toolOrSkip } from '../support/tools.js';

const CLI = join(PROJECT, 'dist/cli/main.js');

interface Listener {
  readonly pid: number;
  /** What came so far. */
  events(): EventView[];
  /** Waits for the event of that name, the `count`th. */
  until(event: string, count?: number): Promise<EventView>;
  /** Its exit code. */
  readonly ended: Promise<number | null>;
  readonly stderr: () => string;
}

/** Starts `layerdisk events --json`, which is listening when this returns. */
async function listen(t: Test, { socket }: TestDaemon): Promise<Listener> {
  const args = ['-u', 'NODE_OPTIONS', process.execPath, CLI, 'events', '--json'];
  const child = spawn('env', [...args, '--socket', socket], { env: cleanEnvironment() });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (chunk: Buffer) => {
    stdout += chunk.toString();
  });
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  const ended = new Promise<number | null>((done) => child.once('close', done));
  t.teardown(async () => {
    child.kill('SIGKILL');
    await ended;
  });
  const events = () =>
    stdout
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line) as EventView);
  const until = (name: string, count = 1) =>
    eventually(`event ${name}`, () => events().filter(({ event }) => event === name)[count - 1]);
  await until('listening');
  return { pid: child.pid ?? 0, events, until, ended, stderr: () => stderr };
}

/** `event vm@snapshot/disk`. */
function brief({ event, vm, snapshot, disk, name }: EventView): string {
  const at = snapshot === undefined ? '' : `@${snapshot}`;
  const of = `${vm ?? ''}${at}${disk === undefined ? '' : `/${disk}`}`;
  return [event, of, name].filter((word) => word !== '' && word !== undefined).join(' ');
}

t.test('a series of commands', { skip: cannotServe() }, async (t) => {
  const daemon = await startDaemon(t);
  const listeners = [await listen(t, daemon), await listen(t, daemon)];
  await daemon.ok('create', 'web', '--disk', '4M');
  await daemon.ok('snapshot', 'take', 'web@one', '-m', 'first');
  await daemon.ok('set', 'web', '--vcpus', '2');
  await daemon.ok('snapshot', 'take', 'web@two');
  await daemon.ok('snapshot', 'rename', 'web@two', 'three');
  await daemon.ok('clone', 'web@one', 'twin', '--linked');
  await daemon.ok('clone', 'web', 'copy', '--full');
  await daemon.ok('rename', 'copy', 'other');
  await daemon.ok('snapshot', 'restore', 'web@one', '--save-current', 'kept');
  t.not((await daemon.cli(['create', 'web', '--disk', '4M'])).code, 0);
  t.not((await daemon.cli(['snapshot', 'delete', 'web@nothing'])).code, 0);
  const image = join(daemon.folder, 'web.img');
  await daemon.ok('export', 'web@one', image, '--format', 'raw');
  await daemon.ok('import', image, 'again');
  await daemon.ok('snapshot', 'delete', 'web@kept');
  await daemon.ok('delete', 'again');
  for (const one of listeners) {
    await one.until('vm.deleted');
    t.same(one.events().map(brief), [
      'listening',
      'vm.created web',
      'snapshot.taken web@one',
      'vm.changed web',
      'snapshot.taken web@two',
      'snapshot.renamed web@two three',
      'vm.cloned twin',
      'vm.cloned copy',
      'vm.renamed copy other',
      'snapshot.taken web@kept',
      'snapshot.restored web@one',
      'export.ended web@one/disk0',
      'vm.imported again',
      'snapshot.deleted web@kept',
      'vm.deleted again',
    ]);
  }
  const [first, second] = listeners;
  process.kill(first?.pid ?? 0, 'SIGINT');
  t.equal(await first?.ended, 130);
  await daemon.ok('delete', 'twin');
  await second?.until('vm.deleted', 2);
  await daemon.stop();
  t.equal(await second?.ended, 3);
  t.equal(second?.events().at(-1)?.event, 'daemon.stopping');
  t.match(JSON.parse(second?.stderr() ?? ''), {
    error: { code: 'unreachable', message: 'the daemon has ended' },
  });
});

t.test('disks in the host', { skip: cannotServe() || noLoopDevices() }, async (t) => {
  const daemon = await startDaemon(t);
  const one = await listen(t, daemon);
  await daemon.ok('create', 'web', '--disk', '8M');
  const device = await daemon.ok('attach', 'web');
  t.equal(await daemon.ok('attach', 'web'), device);
  await tool('mkfs.ext4', ['-q', device]);
  await daemon.ok('detach', device);
  const place = await tempFolder(t, 'place');
  await daemon.ok('mount', 'web', place);
  await daemon.ok('unmount', place);
  await one.until('disk.unmounted');
  t.same(one.events().slice(2).map(brief), [
    'disk.attached web/disk0',
    'disk.detached web/disk0',
    'disk.mounted web/disk0',
    'disk.unmounted web/disk0',
  ]);
});

t.test('a guest', { skip: cannotServe() }, async (t) => {
  if (toolOrSkip(t, 'qemu-system-x86_64', ['--version']) === undefined) return;
  const daemon = await startDaemon(t);
  await daemon.ok('create', 'web', '--disk', '1M', '--memory', '32M');
  const one = await listen(t, daemon);
  await daemon.ok('run', 'web', '--detach');
  const { guest } = await daemon.json<{ guest: { pid: number } }>('info', 'web');
  t.match(await one.until('guest.started'), { vm: 'web', pid: guest.pid });
  await daemon.ok('stop', 'web', '--force');
  t.match(await one.until('guest.stopped'), { vm: 'web', pid: guest.pid });
  t.same(one.events().map(brief), ['listening', 'guest.started web', 'guest.stopped web']);
});

t.test('a store that runs full, and has room again', { skip: cannotServe() }, async (t) => {
  const on = await scratchFileSystem(t, await tempFolder(t, 'space'), 48 * MiB);
  const args = ['--reserve', String(6 * MiB)];
  const daemon = await startDaemon(t, { store: join(on, 'store'), args });
  const one = await listen(t, daemon);
  const ballast = join(on, 'ballast');
  await writeFile(ballast, Buffer.alloc(freeSpace(on).free - 9 * MiB));
  t.match(await one.until('space.low'), { state: 'low', totalBytes: Number });
  await writeFile(join(on, 'more'), Buffer.alloc(5 * MiB));
  await one.until('space.full');
  const late = await listen(t, daemon);
  t.match(await late.until('space.full'), { standing: true });
  await rm(ballast);
  await one.until('space.plenty');
  await late.until('space.plenty');
  t.same(one.events().map(brief), ['listening', 'space.low', 'space.full', 'space.plenty']);
  await daemon.stop();
});

t.test('a VM that is damaged is told to whoever comes', { skip: cannotServe() }, async (t) => {
  const daemon = await startDaemon(t);
  await daemon.ok('create', 'web', '--disk', '1M');
  await daemon.stop();
  await rm(join(daemon.store, 'vms/web.json'));
  await daemon.start();
  const one = await listen(t, daemon);
  t.match(await one.until('vm.damaged'), { vm: 'web', standing: true });
});

t.test('restarts and takeovers', { skip: cannotTakeOver(), timeout: 240_000 }, async (t) => {
  const daemon = await startDaemon(t, { supervise: true });
  const one = await listen(t, daemon);
  await daemon.ok('daemon', 'restart');
  await one.until('listening', 2);
  await daemon.ok('create', 'web', '--disk', '1M');
  process.kill(daemon.servingPid, 'SIGKILL');
  await one.until('listening', 3);
  await daemon.ok('delete', 'web');
  await one.until('vm.deleted');
  t.same(one.events().map(brief), [
    'listening',
    'daemon.restarting',
    'listening',
    'vm.created web',
    'listening',
    'vm.deleted web',
  ]);
  t.match(one.stderr(), /is being restarted: .*\n.*the daemon died: waiting for the next one\n/);
  await daemon.ok('daemon', 'stop');
  t.equal(await one.ended, 3);
});
