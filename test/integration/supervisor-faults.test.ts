/** What a supervisor does when the host fails it, and what is asked of it at odd moments. */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync, renameSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import t, { type Test } from 'tap';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import { mountsBelow } from '../support/mount-guard.js';
import { checkRefusal, EXIT } from '../support/refusal.js';
import { cleanEnvironment, runProgram } from '../support/run-program.js';
import {
  ask,
  askOnce,
  cannotTakeOver,
  eventually,
  spareWaits,
  successor,
} from '../support/takeover.js';

/** A mount that nobody serves would hold a test up for ever. */
const limits = { skip: cannotTakeOver(), timeout: 240_000 };

/** Has system calls of a process fail. */
async function injectInto(t: Test, pid: number, fault: readonly string[]): Promise<void> {
  const child = spawn('strace', ['-p', String(pid), ...fault], {
    env: cleanEnvironment({ NODE_OPTIONS: undefined }),
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => {
    said += chunk.toString();
  });
  const ended = new Promise((resolve) => child.once('close', resolve));
  t.teardown(async () => {
    child.kill('SIGINT');
    await ended;
  });
  await eventually('strace', () => (/attached/.test(said) ? true : undefined));
}

/** A daemon and a file that is open on its mount. */
async function daemonInUse(t: Test): Promise<{ daemon: TestDaemon; file: FileHandle }> {
  const daemon = await startDaemon(t, { supervise: true });
  await daemon.ok('create', 'vm', '--disk', '4M');
  const file = await open(daemon.rawFile('vm'), 'r+');
  t.teardown(() => file.close().catch(() => undefined));
  return { daemon, file };
}

/** Whoever has the file open can go on, until it is closed: then all of it ends. */
async function checkPatience(t: Test, daemon: TestDaemon, file: FileHandle): Promise<void> {
  await eventually('it waits for whoever uses it', () =>
    / is in use by /.test(daemon.log) ? true : undefined,
  );
  t.equal((await file.write(Buffer.alloc(4096, 7), 0, 4096, 0)).bytesWritten, 4096);
  await file.sync();
  await file.close();
  t.equal(await daemon.ended(), 0, 'ends in order');
  t.same(mountsBelow(daemon.folder), [], 'nothing stays mounted');
}

async function childrenOf(pid: number): Promise<number[]> {
  const { stdout } = await runProgram('pgrep', ['-P', String(pid)]);
  return stdout.split('\n').filter(Boolean).map(Number);
}

t.test('no memory for another process, for a while', limits, async (t) => {
  const { daemon, file } = await daemonInUse(t);
  const { pid } = await ask(daemon, 'daemon.status', {});
  const calls = 'clone,clone3,fork,vfork';
  await injectInto(t, daemon.pid, [
    ...['-e', `trace=${calls}`, '-e', `inject=${calls}:error=ENOMEM:when=1..3`],
  ]);
  // The spare is gone before the daemon is, as where the host takes back memory.
  for (const spare of await childrenOf(daemon.pid)) {
    if (spare !== pid) process.kill(spare, 'SIGKILL');
  }
  await eventually('no spare', async () =>
    (await childrenOf(daemon.pid)).join() === String(pid) ? true : undefined,
  );
  process.kill(pid, 'SIGKILL');
  t.equal((await file.read(Buffer.alloc(1), 0, 1, 0)).bytesRead, 1, 'whoever waited goes on');
  await eventually('the next daemon', () => successor(daemon, pid));
  t.match(daemon.log, /the daemon died \(spawn .*ENOMEM\)/);
});

t.test('told to end while the next daemon takes over', limits, async (t) => {
  const { daemon, file } = await daemonInUse(t);
  const { pid } = await ask(daemon, 'daemon.status', {});
  const [spare = 0] = await eventually('a spare', async () => {
    const others = (await childrenOf(daemon.pid)).filter((child) => child !== pid);
    return others.length > 0 ? others : undefined;
  });
  // It stands still between the death of the other one and its own first answer.
  process.kill(spare, 'SIGSTOP');
  process.kill(pid, 'SIGKILL');
  await eventually('the death', () => (/the daemon died/.test(daemon.log) ? true : undefined));
  process.kill(daemon.pid, 'SIGTERM');
  await eventually('the signal', () => (/SIGTERM: ending/.test(daemon.log) ? true : undefined));
  process.kill(spare, 'SIGCONT');
  await checkPatience(t, daemon, file);
});

t.test('told to end while a restart hands over', limits, async (t) => {
  const { daemon, file } = await daemonInUse(t);
  const { pid } = await ask(daemon, 'daemon.status', {});
  const asked = askOnce(daemon, 'daemon.restart', {});
  await eventually('the next one', () => (/handing over/.test(daemon.log) ? true : undefined));
  // It hears of the signal, of the restart and of the death at once.
  process.kill(daemon.pid, 'SIGSTOP');
  await eventually('the death', () =>
    / Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8')) ? true : undefined,
  );
  process.kill(daemon.pid, 'SIGTERM');
  process.kill(daemon.pid, 'SIGCONT');
  await asked;
  await checkPatience(t, daemon, file);
});

t.test('stopped while a restart is asked for, and nothing stays', limits, async (t) => {
  const daemon = await startDaemon(t, { supervise: true });
  const { pid } = await ask(daemon, 'daemon.status', {});
  await eventually('a spare', async () =>
    (await childrenOf(daemon.pid)).length > 1 ? true : undefined,
  );
  // It hears of the restart and of the end of the daemon at once.
  process.kill(daemon.pid, 'SIGSTOP');
  const restarted = askOnce(daemon, 'daemon.restart', {}).catch(() => undefined);
  await ask(daemon, 'daemon.status', {});
  await askOnce(daemon, 'daemon.stop', {});
  await eventually('the end', () =>
    / Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8')) ? true : undefined,
  );
  process.kill(daemon.pid, 'SIGCONT');
  await restarted;
  t.equal(await daemon.ended(), 0, 'the supervisor ends, too');
  t.notMatch(daemon.log, /the test had to kill it/);
});

t.test('the store is moved away and comes back', limits, async (t) => {
  const { daemon, file } = await daemonInUse(t);
  const { pid } = await ask(daemon, 'daemon.status', {});
  await spareWaits(daemon);
  const away = `${daemon.store}.away`;
  renameSync(daemon.store, away);
  t.equal((await ask(daemon, 'daemon.status', {})).pid, pid, 'the daemon answers');
  const refused = await daemon.cli(['create', 'other', '--disk', '4M']);
  checkRefusal(t, refused, [EXIT.failed], /cannot see how much room .*store has: ENOENT/);
  const restarted = await daemon.cli(['daemon', 'restart']);
  checkRefusal(t, restarted, [EXIT.failed], /store is not there any more/);
  process.kill(pid, 'SIGKILL');
  await eventually('a try', () =>
    /store is not there any more\)/.test(daemon.log) ? true : undefined,
  );
  t.notOk(existsSync(daemon.store), 'none is made in its place');
  renameSync(away, daemon.store);
  t.equal((await file.read(Buffer.alloc(1), 0, 1, 0)).bytesRead, 1, 'whoever waited goes on');
});
