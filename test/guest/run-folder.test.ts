/** Whether a guest runs is read off the living process, never off what it left behind. */
import { spawn } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import t, { type Test } from 'tap';
import { identify, isRunning } from '../../src/guest/processes.js';
import {
  checkRunFolder,
  RunLock,
  type RunRecord,
  readState,
  runFiles,
  writeRecord,
} from '../../src/guest/run-folder.js';
import { tempFolder } from '../support/temp-tree.js';

/** A process that stands in for QEMU: it inherits the lock and does nothing. */
async function start(t: Test, lock: RunLock) {
  const child = spawn('sleep', ['1000'], { stdio: ['ignore', 'ignore', 'ignore', lock.fd] });
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  t.teardown(() => void child.kill('SIGKILL'));
  const end = async () => {
    child.kill('SIGKILL');
    await ended;
  };
  return { pid: child.pid ?? -1, end };
}

function recordOf(pid: number): RunRecord {
  const identity = identify(pid);
  if (identity === undefined) throw new Error(`no process ${pid}`);
  return {
    ...identity,
    vmId: 'x',
    started: new Date().toISOString(),
    accelerator: 'tcg',
    console: 'socket',
    hardware: { vcpus: 1, memory: 2 ** 20, nics: [], disks: [] },
    arguments: [],
    folder: '/',
  };
}

t.test('from the lock to the end of the process', async (t) => {
  const folder = await tempFolder(t, 'run');
  t.equal(readState(folder), undefined);
  const lock = await RunLock.acquire(folder, 'web');
  t.equal(readState(folder), 'in-between');
  const guest = await start(t, lock);
  lock.release();
  t.equal(readState(folder), 'in-between', 'the process holds the lock on its own');
  await writeRecord(folder, recordOf(guest.pid));
  t.match(readState(folder), { pid: guest.pid });
  await t.rejects(RunLock.acquire(folder, 'web'), { code: 'busy' });

  await guest.end();
  t.equal(readState(folder), undefined, 'the note alone means nothing');
  const again = await RunLock.acquire(folder, 'web');
  again.clear(folder);
  again.release();
  again.release();
});

t.test('another process of the same number', async (t) => {
  const folder = await tempFolder(t, 'run');
  const own = recordOf(process.pid);
  t.ok(isRunning(own));
  await writeRecord(folder, { ...own, startTicks: own.startTicks + 1 });
  t.equal(readState(folder), undefined, 'started at another time');
  await writeRecord(folder, { ...own, bootId: 'another' });
  t.equal(readState(folder), undefined, 'of another boot');
  for (const rubbish of ['', '{', 'null', '[]', '{"pid":"1"}', '{"pid":1}']) {
    await writeFile(runFiles(folder).record, rubbish);
    t.equal(readState(folder), undefined, `a note that says ${JSON.stringify(rubbish)}`);
  }
});

t.test('a path that no socket can have', async (t) => {
  t.throws(() => checkRunFolder(`/${'x'.repeat(107)}`), { code: 'usage' });
  t.doesNotThrow(() => checkRunFolder('/run/7'));
});
