/** Reads and writes by address move the bytes that were meant, and no others. */
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { readAt, readNext, writeAt, writeNext } from '../../src/storage/positioned-io.js';

t.test('part of a buffer, at a place of the file', async (t) => {
  const file = join(t.testdir(), 'f');
  writeFileSync(file, 'abcdefgh');
  const fd = openSync(file, 'r+');
  t.teardown(() => closeSync(fd));
  const target = Buffer.alloc(8, '.');
  t.equal(readAt(fd, target, 2, 3, 4), 3);
  t.equal(target.toString(), '..efg...');
  t.equal(readAt(fd, target, 0, 8, 6), 2, 'up to the end of the file');
  t.equal(readAt(fd, target, 0, 8, 2 ** 40), 0, 'past the end, and past 32 bits');
  t.equal(writeAt(fd, Buffer.from('0123'), 1, 2, 3), 2);
  t.equal(readFileSync(file, 'utf8'), 'abc12fgh');
  t.equal(writeNext(fd, Buffer.from('XYZ'), 2), 2);
  t.equal(readNext(fd, target, 4), 4);
  t.equal(target.toString('utf8', 0, 4), 'c12f');
});

t.test('more buffers than are remembered, and small ones', async (t) => {
  const file = join(t.testdir(), 'f');
  const fd = openSync(file, 'w+');
  t.teardown(() => closeSync(fd));
  const buffers = Array.from({ length: 20 }, (_, i) => Buffer.from([i, i + 1, i + 2]));
  for (let round = 0; round < 3; round += 1) {
    for (const [i, buffer] of buffers.entries()) writeAt(fd, buffer, 0, 3, i * 3);
  }
  t.same([...readFileSync(file)], [...Buffer.concat(buffers)]);
});

t.test('errors', async (t) => {
  const file = join(t.testdir(), 'f');
  const fd = openSync(file, 'w');
  t.teardown(() => closeSync(fd));
  const buffer = Buffer.alloc(8);
  t.throws(() => readAt(fd, buffer, 0, 8, 0), { code: 'EBADF', syscall: 'pread' });
  t.throws(() => writeAt(fd, buffer, 0, 8, -1), { code: 'EINVAL' });
  const shut = openSync('/dev/full', 'w');
  t.teardown(() => closeSync(shut));
  t.throws(() => writeNext(shut, buffer, 8), { code: 'ENOSPC' });
  t.throws(() => readAt(fd, buffer, 4, 5, 0), RangeError, 'past the end of the buffer');
  t.throws(() => readAt(fd, buffer, -1, 5, 0), RangeError);
});

t.test('memory that went to another thread is refused', async (t) => {
  const file = join(t.testdir(), 'f');
  const fd = openSync(file, 'w+');
  t.teardown(() => closeSync(fd));
  const buffer = Buffer.from(new ArrayBuffer(64));
  t.equal(writeAt(fd, buffer, 0, 64, 0), 64);
  structuredClone(buffer.buffer, { transfer: [buffer.buffer] });
  t.throws(() => writeAt(fd, buffer, 0, 64, 0), RangeError);
});
