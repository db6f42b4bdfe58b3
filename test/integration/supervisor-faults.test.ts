/** What a supervisor does when the host fails it, and what is asked of it at odd moments. */
import { spawn } from 'node:child_process';
import { open } from 'node:fs/promises';
import t, { type Test } from 'tap';
import { startDaemon } from '../support/daemon.js';
import { cleanEnvironment, runProgram } from '../support/run-program.js';
import { ask, cannotTakeOver, eventually, successor } from '../support/takeover.js';

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

async function childrenOf(pid: number): Promise<number[]> {
  const { stdout } = await runProgram('pgrep', ['-P', String(pid)]);
  return stdout.split('\n').filter(Boolean).map(Number);
}

t.test('no memory for another process, for a while', limits, async (t) => {
  const daemon = await startDaemon(t, { supervise: true });
  await daemon.ok('create', 'vm', '--disk', '4M');
  const file = await open(daemon.rawFile('vm'), 'r+');
  t.teardown(() => file.close().catch(() => undefined));
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
