/** The lock file: one process at a time, named to the next, free when it dies. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { FileLock } from '../../src/storage/file-lock.js';

t.test('a second holder is refused by name, until the first lets go', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'layerdisk-lock-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'lock');
  writeFileSync(path, '{"pid":1,"started":"left behind by the dead, and much longer than ours"}\n');
  const lock = FileLock.acquire(path, 'the store');
  t.match(JSON.parse(readFileSync(path, 'utf8')), { pid: process.pid });
  t.throws(() => FileLock.acquire(path, 'the store'), {
    code: 'busy',
    message: new RegExp(`^the store is in use by process ${process.pid} \\(since 2`),
  });
  lock.release();
  FileLock.acquire(path, 'the store').release();
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
