/** The lock file: one process at a time, named to the next, free when it dies. */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { FileLock, requireHeldFolder } from '../../src/storage/file-lock.js';

t.test('a second holder is refused by name, until the first lets go', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'layerdisk-lock-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'lock');
  writeFileSync(path, '{"pid":1,"started":"left behind by the dead, and much longer than ours"}\n');
  const lock = FileLock.acquire(path, 'the store');
  t.match(JSON.parse(readFileSync(path, 'utf8')), { pid: 1 }, 'nothing is written yet');
  lock.claim();
  t.match(JSON.parse(readFileSync(path, 'utf8')), { pid: process.pid });
  t.throws(() => FileLock.acquire(path, 'the store'), {
    code: 'busy',
    message: new RegExp(`^the store is in use by process ${process.pid} \\(since 2`),
    hint: new RegExp(`kill ${process.pid}$`),
  });
  const [first, size] = [readFileSync(path, 'utf8'), statSync(path).size];
  lock.release();
  FileLock.acquire(path, 'the store').release();
  t.not(readFileSync(path, 'utf8'), first, 'it says that it let go');
  t.equal(statSync(path).size, size, 'in place: a full disk is no obstacle');
});

t.test('the folder is locked although the file is gone', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'layerdisk-lock-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'lock');
  const lock = FileLock.acquire(path, 'the store');
  lock.claim();
  rmSync(path);
  t.throws(() => FileLock.acquire(path, 'the store'), { code: 'busy', hint: /fuser -v/ });
  lock.release();
  FileLock.acquire(path, 'the store').release();
});

t.test('a copy of a lock that was held', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'layerdisk-lock-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const copied = (from: string, to: string): boolean => {
    mkdirSync(join(folder, to));
    execFileSync('cp', ['-a', join(folder, from, 'lock'), join(folder, to, 'lock')]);
    const lock = FileLock.acquire(join(folder, to, 'lock'), 'the copy');
    lock.release();
    return lock.copiedWhileHeld;
  };
  mkdirSync(join(folder, 'here'));
  const path = join(folder, 'here', 'lock');
  const lock = FileLock.acquire(path, 'the store');
  t.notOk(copied('here', 'empty'), 'nothing was said');
  lock.claim();
  t.ok(copied('here', 'held'), 'copied while held');
  const note = readFileSync(path);
  lock.release();
  t.notOk(copied('here', 'closed'), 'copied when it was let go');
  // As a process that was killed leaves it.
  writeFileSync(path, note);
  const next = FileLock.acquire(path, 'the store');
  t.notOk(next.copiedWhileHeld, 'the same file after a death');
  next.release();
});

t.test('another process', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'layerdisk-lock-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'lock');
  // flock(1) takes the same kind of lock and writes nothing into the file.
  const other = spawn('flock', ['--no-fork', path, 'sh', '-c', 'echo locked; exec sleep 60']);
  t.teardown(() => other.kill('SIGKILL'));
  await once(other.stdout, 'data');
  t.throws(() => FileLock.acquire(path, 'the store'), {
    code: 'busy',
    message: 'the store is in use by another process',
  });
  t.throws(() => FileLock.acquire(join(folder, 'no', 'lock'), 'the store'), { code: 'failed' });
});

t.test('a folder that is moved away, and another one in its place', async (t) => {
  const above = mkdtempSync(join(tmpdir(), 'layerdisk-lock-'));
  t.teardown(() => rmSync(above, { recursive: true }));
  const folder = join(above, 'store');
  mkdirSync(folder);
  const lock = FileLock.acquire(join(folder, 'lock'), 'the store');
  t.teardown(() => lock.release());
  const held = lock.descriptors.folder ?? -1;
  requireHeldFolder(folder, held);
  renameSync(folder, `${folder}.away`);
  t.throws(() => requireHeldFolder(folder, held), { code: 'failed', message: /not there/ });
  mkdirSync(folder);
  t.throws(() => requireHeldFolder(folder, held), { code: 'failed', message: /another folder/ });
  requireHeldFolder(`${folder}.away`, held);
});
