/** `run` and `stop` where they cannot work: one line that says why, and nothing left running. */
import { readdir, readFile, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import { cannotServe } from '../support/mount-guard.js';
import { checkRefusal, EXIT } from '../support/refusal.js';
import { tool } from '../support/run-program.js';
import { tempFolder } from '../support/temp-tree.js';
import { tool as toolOrSkip } from '../support/tools.js';

/** A VM whose guest could not be started leaves nothing when it is deleted. */
async function checkNoRunFolder(t: Test, daemon: TestDaemon): Promise<void> {
  const folder = join(daemon.store, 'vms-run');
  const before = await readdir(folder);
  await daemon.ok('create', 'brief', '--disk', '1M', '--memory', '32M');
  const run = await daemon.cli(['run', 'brief', '--', '-no-such-option']);
  checkRefusal(t, run, [EXIT.failed], /no-such-option/);
  t.equal((await readdir(folder)).length, before.length + 1);
  await daemon.ok('delete', 'brief');
  t.same(await readdir(folder), before);
}

/** A name like any other to us. */
async function checkOddName(daemon: TestDaemon): Promise<void> {
  await daemon.ok('create', 'id', '--disk', '1M', '--memory', '32M');
  await daemon.ok('run', 'id', '--detach');
  await daemon.ok('stop', 'id', '--force');
}

/** What keeps the daemon from stopping is named once, and so is how to end it. */
async function checkNoStop(t: Test, daemon: TestDaemon, pid: number): Promise<void> {
  const { stderr, code } = await daemon.cli(['daemon', 'stop']);
  t.equal(code, EXIT.busy);
  t.match(stderr, /guests run: web\nhint: .*layerdisk .*stop web\n$/);
  t.equal(stderr.split(`(pid ${pid})`).length, 2, 'the process is named once');
}

async function checkProcessors(t: Test, daemon: TestDaemon): Promise<void> {
  await daemon.ok('create', 'wide', '--disk', '1M', '--memory', '32M', '--vcpus', '1024');
  const run = await daemon.cli(['run', 'wide', '--accel', 'tcg']);
  checkRefusal(t, run, [EXIT.failed], /CPUs/);
  const [, fewer = ''] = /layerdisk (?:--\S+ \S+ )*set wide --vcpus (\d+);/.exec(run.stderr) ?? [];
  t.match(fewer, /^\d+$/, `the hint says how many are possible: ${run.stderr}`);
  await daemon.ok('delete', 'wide');
}

t.test('refusals of run and stop', { skip: cannotServe() }, async (t) => {
  const daemon = await startDaemon(t);
  await daemon.ok('create', 'web', '--disk', '1M', '--memory', '32M');
  const refused = async (args: readonly string[], code: number, about: RegExp) =>
    checkRefusal(t, await daemon.cli(args), [code], about);

  await refused(['run', 'web', '--accel', 'magic'], EXIT.usage, /magic/);
  await refused(['run', 'web@now'], EXIT.usage, /web@now/);
  await refused(['run', 'nobody'], EXIT.notFound, /nobody/);
  await refused(['stop', 'nobody'], EXIT.notFound, /nobody/);
  await refused(['stop', 'web'], EXIT.notFound, /web.* does not run/);
  await refused(['stop', 'web', '--timeout', 'soon'], EXIT.usage, /soon/);
  await refused(['console', 'web'], EXIT.notFound, /web.* does not run/);

  // A PATH on which there is no QEMU.
  const bin = await tempFolder(t, 'bin');
  await symlink(process.execPath, join(bin, 'node'));
  await symlink('/usr/bin/env', join(bin, 'env'));
  const env = { PATH: bin };
  const missing = await daemon.cli(['run', 'web', '--accel', 'tcg'], { env });
  checkRefusal(t, missing, [EXIT.notSupported], /not installed/);
  t.match(missing.stderr, /apt-get install qemu-system-x86/);

  await t.test('disks that somebody writes to', async (t) => {
    const device = await daemon.ok('attach', 'web');
    checkRefusal(t, await daemon.cli(['run', 'web']), [EXIT.busy], new RegExp(device));
    await daemon.ok('detach', 'web');
  });

  await t.test('with QEMU', async (t) => {
    if (toolOrSkip(t, 'qemu-system-x86_64', ['--version']) === undefined) return;
    await refused(['run', 'web', '--', '-no-such-option'], EXIT.failed, /no-such-option/);
    await daemon.ok('set', 'web', '--nic', 'bridged,network=no-such-br');
    await refused(['run', 'web'], EXIT.notSupported, /no bridge "no-such-br"/);
    await daemon.ok('set', 'web', '--nic', 'none');

    await t.test('more processors than QEMU has', (t) => checkProcessors(t, daemon));
    await t.test('a VM whose name is an option of QEMU', () => checkOddName(daemon));
    await t.test('a VM that is deleted', (t) => checkNoRunFolder(t, daemon));

    await daemon.ok('run', 'web', '--detach');
    const { guest } = await daemon.json<{ guest: { pid: number } }>('info', 'web');
    // Nobody in there listens to the power button: the firmware found no system.
    await refused(['stop', 'web', '--timeout', '1'], EXIT.busy, /did not power off within 1 s/);

    await t.test('the daemon does not stop', (t) => checkNoStop(t, daemon, guest.pid));

    await t.test('a daemon that starts anew', async (t) => {
      await daemon.kill();
      t.match(await readFile(`/proc/${guest.pid}/comm`, 'utf8'), /^qemu/, 'the guest lives on');
      await tool('umount', ['-l', daemon.mountpoint]);
      await daemon.start();
      const found = await daemon.json<{ guest: { pid: number } }>('info', 'web');
      t.equal(found.guest.pid, guest.pid, 'finds the guest of the one before');
    });
    await daemon.ok('stop', 'web', '--force');
    t.equal((await daemon.json<{ guest?: object }>('info', 'web')).guest, undefined);
  });
});
