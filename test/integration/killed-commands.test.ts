/**
 * Commands that hold a VM's lock and are killed: no QEMU stays that nobody can end, and who still
 * works on the disks keeps others off.
 */
import { spawn } from 'node:child_process';
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { VmView } from '../../src/control/protocol.js';
import { readText } from '../../src/storage/small-files.js';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import { childrenOf } from '../support/footprint.js';
import { cannotServe } from '../support/mount-guard.js';
import { checkRefusal, EXIT } from '../support/refusal.js';
import { cleanEnvironment, PROJECT, tool } from '../support/run-program.js';
import { eventually } from '../support/takeover.js';
import { tempFolder } from '../support/temp-tree.js';

/** A QEMU that says nothing for ever, by the name that the kernel gives the real one. */
async function silentQemu(t: Test): Promise<{ bin: string; pid: () => number | undefined }> {
  const bin = await tempFolder(t, 'bin');
  const [fifo, noted] = [join(bin, 'fifo'), join(bin, 'pid')];
  await tool('mkfifo', [fifo]);
  const program = join(bin, 'qemu-system-x86_64');
  await writeFile(program, `#!/bin/sh\necho $$ >${noted}\nread word <${fifo}\n`);
  await chmod(program, 0o755);
  const pid = () => Number(readText(noted) ?? '') || undefined;
  return { bin, pid };
}

function isThere(pid: number): boolean {
  // A zombie has ended: nobody here may be its parent.
  return /^State:\s+[^ZX]/m.test(readText(`/proc/${pid}/status`) ?? '');
}

/** The command line, in a process of its own. */
function begin(daemon: TestDaemon, words: readonly string[], environment = {}) {
  const args = ['-u', 'NODE_OPTIONS', 'node', join(PROJECT, 'dist/cli/main.js'), ...words];
  const env = cleanEnvironment({
    LAYERDISK_STORE: daemon.store,
    LAYERDISK_SOCKET: daemon.socket,
    ...environment,
  });
  const child = spawn('env', args, { env, stdio: 'ignore' });
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  return { child, ended };
}

/** Starts `run web` and waits until QEMU is there. */
async function beginRun(t: Test, daemon: TestDaemon) {
  const { bin, pid } = await silentQemu(t);
  const words = ['run', 'web', '--detach', '--accel', 'tcg'];
  const { child, ended } = begin(daemon, words, { PATH: `${bin}:${process.env.PATH}` });
  const qemu = await eventually('QEMU starts', pid);
  t.teardown(() => {
    if (isThere(qemu)) process.kill(qemu, 'SIGKILL');
  });
  return { child, ended, qemu };
}

t.test('a run that is interrupted', { skip: cannotServe() }, async (t) => {
  const daemon = await startDaemon(t);
  await daemon.ok('create', 'web', '--disk', '1M', '--memory', '32M');

  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    await t.test(`by ${signal}`, async (t) => {
      const { child, ended, qemu } = await beginRun(t, daemon);
      child.kill(signal);
      t.equal(await ended, 130);
      t.notOk(isThere(qemu), 'QEMU is gone');
      checkRefusal(t, await daemon.cli(['stop', 'web']), [EXIT.notFound], /does not run/);
    });
  }

  await t.test('by kill -9', async (t) => {
    const { child, ended, qemu } = await beginRun(t, daemon);
    const early = await daemon.cli(['stop', 'web', '--force']);
    checkRefusal(t, early, [EXIT.busy], /just being started/);
    child.kill('SIGKILL');
    await ended;
    t.ok(isThere(qemu), 'QEMU outlives it');
    const asked = await daemon.cli(['stop', 'web']);
    checkRefusal(t, asked, [EXIT.busy], new RegExp(`pid ${qemu}`));
    t.match(asked.stderr, /hint: .*layerdisk stop web --force/);
    await daemon.ok('stop', 'web', '--force');
    t.notOk(isThere(qemu), 'and is ended');
    t.equal((await daemon.json<VmView>('info', 'web')).guest, undefined);
    await daemon.ok('delete', 'web');
  });
});

/** The process that clears, stopped before it has mounted anything. */
async function stoppedClearing(cli: number): Promise<number> {
  const isIt = (pid: number) => /identity\/main\.js/.test(readText(`/proc/${pid}/cmdline`) ?? '');
  const pid = await eventually('the process that clears', () => childrenOf(cli).find(isIt));
  process.kill(pid, 'SIGSTOP');
  return pid;
}

t.test('a reset-identity by kill -9', { skip: cannotServe() }, async (t) => {
  const daemon = await startDaemon(t);
  await daemon.ok('create', 'web', '--disk', '16M');
  const root = await tempFolder(t, 'root');
  for (const name of ['etc', 'usr']) await mkdir(join(root, name));
  await writeFile(join(root, 'etc/machine-id'), '0123456789abcdef0123456789abcdef\n');
  await tool('mkfs.ext4', ['-q', '-F', '-d', root, daemon.rawFile('web')]);

  // Where it is to mount stays behind when it is killed.
  const own = { TMPDIR: await tempFolder(t, 'places') };
  const { child, ended } = begin(daemon, ['reset-identity', 'web'], own);
  const pid = await stoppedClearing(child.pid ?? 0);
  t.teardown(() => {
    if (isThere(pid)) process.kill(pid, 'SIGKILL');
  });
  child.kill('SIGKILL');
  await ended;
  for (const words of [['reset-identity'], ['run'], ['stop', '--force'], ['delete']]) {
    const refused = await daemon.cli([...words, 'web']);
    checkRefusal(t, refused, [EXIT.busy], /just being started/);
  }
  process.kill(pid, 'SIGCONT');
  await eventually('it ends', () => (isThere(pid) ? undefined : true));
  // It may have been told what to do before its caller was killed, or not: either is whole.
  t.match(await daemon.ok('reset-identity', 'web'), /nothing was there|: machine-id$/m);
  t.match(await daemon.ok('reset-identity', 'web'), /nothing was there/);
  t.match(await daemon.json('check'), { damaged: 0, leaks: 0 });
});
