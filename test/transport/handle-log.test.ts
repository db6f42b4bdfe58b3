/** The open files as they are written down for the next daemon on the same mount. */
import { closeSync, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import t, { type Test } from 'tap';
import { memoryFile } from '../../src/storage/libc.js';
import { HandleLog, type OpenRecord } from '../../src/transport/kernel/handle-log.js';

const skip = process.platform === 'linux' ? false : 'memory files are Linux';
const RECORD_BYTES = 32;
const MAGIC = 0x6f70656e;
const RECORD: OpenRecord = {
  serial: 7,
  handle: 3,
  node: { lo: 5, hi: 1 },
  unique: { lo: 10, hi: 2 },
  pid: 99,
  write: false,
  backing: 0,
};
/** Every field as large as it may be. */
const LARGEST: OpenRecord = {
  serial: 0xffff_ffff,
  handle: 0xffff_fffe,
  node: { lo: 0xffff_fffd, hi: 0xffff_fffc },
  unique: { lo: 0xffff_fffb, hi: 0x7fff_ffff },
  pid: 0x3f_ffff,
  write: true,
  backing: 0xff_ffff,
};

function memory(t: Test): number {
  const fd = memoryFile('handle-log-test');
  t.teardown(() => closeSync(fd));
  return fd;
}

function begun(t: Test): { readonly fd: number; readonly log: HandleLog } {
  const fd = memory(t);
  const log = new HandleLog(fd);
  t.same(log.load(), { open: [], lastSerial: 0 });
  return { fd, log };
}

const serials = (fd: number) => new HandleLog(fd).load().open.map(({ serial }) => serial);

t.test('the next daemon reads what was written', { skip }, async (t) => {
  const { fd, log } = begun(t);
  log.add(RECORD);
  log.add(LARGEST);
  const { open, lastSerial } = new HandleLog(fd).load();
  t.match(open, [RECORD, LARGEST]);
  t.equal(open.length, 2);
  t.equal(lastSerial, LARGEST.serial);
});

t.test('a place is used again, and its serial known until then', { skip }, async (t) => {
  const { fd, log } = begun(t);
  for (const serial of [1, 2, 3]) log.add({ ...RECORD, serial });
  log.remove(3);
  log.remove(3);
  log.remove(8);
  t.same(serials(fd), [1, 2]);
  t.equal(new HandleLog(fd).load().lastSerial, 3, 'it is given to no other file');
  log.add({ ...RECORD, serial: 4 });
  log.add({ ...RECORD, serial: 5 });
  t.same(serials(fd), [1, 2, 4, 5]);
  t.equal(fstatSync(fd).size, 5 * RECORD_BYTES, 'the first record and four files');
});

t.test('who goes on with it keeps its places', { skip }, async (t) => {
  const { fd, log } = begun(t);
  for (const serial of [1, 2, 3]) log.add({ ...RECORD, serial });
  log.remove(2);
  const next = new HandleLog(fd);
  next.load();
  next.remove(1);
  for (const serial of [4, 5, 6]) next.add({ ...RECORD, serial });
  t.same(serials(fd).sort(), [3, 4, 5, 6]);
  t.equal(fstatSync(fd).size, 5 * RECORD_BYTES);
});

t.test('what cannot be noted is refused, and nothing is taken for noted', { skip }, async (t) => {
  const { fd, log } = begun(t);
  log.add(RECORD);
  const readOnly = openSync(`/proc/self/fd/${fd}`, 'r');
  t.teardown(() => closeSync(readOnly));
  const full = new HandleLog(readOnly);
  full.load();
  t.throws(() => full.add({ ...RECORD, serial: 8 }), { code: 'failed', errno: 'ENOMEM' });
  full.remove(8);
  t.throws(() => full.remove(RECORD.serial), /EBADF/);
  t.same(serials(fd), [RECORD.serial]);
});

t.test('a log of another kind', { skip }, async (t) => {
  const begin = (...words: number[]) => {
    const fd = memory(t);
    writeSync(fd, Uint32Array.from([...words, ...Array(8 - words.length).fill(0)]));
    return fd;
  };
  for (const words of [
    [MAGIC, 0],
    [MAGIC, 3],
    [MAGIC + 1, 2],
  ]) {
    t.throws(() => new HandleLog(begin(...words)).load(), { code: 'not-supported' });
  }
  const old = begin(MAGIC, 1);
  new HandleLog(old).add({ ...RECORD, backing: 0 });
  t.same(serials(old), [RECORD.serial], 'the first version lacks only the file that is read');
  const version = Buffer.alloc(4);
  readSync(old, version, 0, 4, 4);
  t.equal(version.readUInt32LE(0), 2, 'a daemon that knows only the first may not go on with it');
});
