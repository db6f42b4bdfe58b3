/** Who goes before others on the CPU, and for how long: looked at where the kernel keeps it. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { getPriority } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import t from 'tap';
import { hurry, Precedence } from '../../src/daemon/urgency.js';

const skip = process.geteuid?.() === 0 ? false : 'needs root';
/** Whether the kernel shares the CPU among sessions first. */
const hasSessions = (() => {
  try {
    writeFileSync('/proc/self/autogroup', readSession('self'));
    return true;
  } catch {
    return false;
  }
})();

/** The nice value of a process's session. */
function readSession(pid: string | number): string {
  return /nice (-?\d+)/.exec(readFileSync(`/proc/${pid}/autogroup`, 'utf8'))?.[1] ?? '0';
}

t.test('a process and its session', { skip }, async (t) => {
  const child = spawn('sleep', ['60'], { detached: true });
  t.teardown(() => child.kill('SIGKILL'));
  const pid = child.pid ?? 0;
  const before = { nice: getPriority(pid), session: hasSessions ? readSession(pid) : '' };
  const easeOff = hurry(pid);
  t.equal(getPriority(pid), -10);
  if (hasSessions) t.equal(readSession(pid), '-10');
  easeOff();
  easeOff();
  t.equal(getPriority(pid), before.nice);
  if (hasSessions) t.equal(readSession(pid), before.session);
});

t.test('tasks of the main thread, also those that overlap or fail', { skip }, async (t) => {
  const usual = getPriority();
  const session = hasSessions ? readSession('self') : '';
  const precedence = new Precedence();
  const first = precedence.during(async () => {
    t.equal(getPriority(process.pid), -10, 'it goes before others');
    await sleep(20);
    throw new Error('no luck');
  });
  const second = precedence.during(async () => {
    const worker = new Worker('setInterval(() => {}, 1000)', { eval: true });
    t.teardown(() => worker.terminate());
    await once(worker, 'online');
    await sleep(60);
    t.equal(getPriority(process.pid), -10, 'until the last one is done');
    return 'done';
  });
  await t.rejects(first, /no luck/);
  t.equal(await second, 'done');
  const threads = readdirSync('/proc/self/task').map(Number);
  t.ok(
    threads.every((thread) => getPriority(thread) === usual),
    'then it takes its turn, with threads that it made meanwhile',
  );
  if (hasSessions) t.equal(readSession('self'), session, 'nor was a session of others touched');
});
