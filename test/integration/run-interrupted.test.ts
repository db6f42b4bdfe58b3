/** `run` that ends while QEMU is being started: no QEMU stays that nobody can end. */
import { spawn } from 'node:child_process';
import { chmod, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { VmView } from '../../src/control/protocol.js';
import { readText } from '../../src/storage/small-files.js';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
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

/** Starts `run web` and waits until QEMU is there. */
async function beginRun(t: Test, daemon: TestDaemon) {
  const { bin, pid } = await silentQemu(t);
  const args = [join(PROJECT, 'dist/cli/main.js'), 'run', 'web', '--detach', '--accel', 'tcg'];
  const env = cleanEnvironment({
    LAYERDISK_STORE: daemon.store,
    LAYERDISK_SOCKET: daemon.socket,
    PATH: `${bin}:${process.env.PATH}`,
  });
  const child = spawn('env', ['-u', 'NODE_OPTIONS', 'node', ...args], { env, stdio: 'ignore' });
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
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
