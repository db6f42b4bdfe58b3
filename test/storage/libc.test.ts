/** Foreign calls do what their C counterparts do, and fail with their errno. */
import {
  closeSync,
  existsSync,
  fstatSync,
  openSync,
  readFileSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { errnoName } from '../../src/common/errors.js';
import { receiveDescriptor } from '../../src/storage/descriptor-passing.js';
import {
  addressOf,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  fallocate,
  flock,
  ioctlBuffer,
  LOCK_EX,
  LOCK_SH,
  lseek,
  mount,
  SEEK_DATA,
  SEEK_HOLE,
  SystemCallError,
  socketPair,
  umount,
} from '../../src/storage/libc.js';
import { temporaryDirectory } from '../support/disk-server.js';
import { PROJECT, runProgram } from '../support/run-program.js';

const skip = process.platform === 'linux' ? false : 'needs Linux';
const MiB = 1024 * 1024;

t.test('files', { skip }, async (t) => {
  const { path, remove } = temporaryDirectory();
  t.teardown(remove);
  const name = join(path, 'file');
  writeFileSync(name, Buffer.alloc(MiB, 1));
  const fd = openSync(name, 'r+');
  t.teardown(() => closeSync(fd));
  fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, MiB / 2);
  t.equal(fstatSync(fd).size, MiB);
  t.equal(readFileSync(name)[0], 0);
  t.equal(lseek(fd, 0, SEEK_DATA), MiB / 2);
  t.equal(lseek(fd, 0, SEEK_HOLE), 0);
  t.throws(() => lseek(fd, MiB, SEEK_DATA), { code: 'ENXIO', syscall: 'lseek' });
  t.throws(() => fallocate(-1, 0, 0, 1), { code: 'EBADF' });
  t.equal(errnoName(new SystemCallError('mount', 1)), 'EPERM');
});

t.test('locks belong to an open file', { skip }, async (t) => {
  const { path, remove } = temporaryDirectory();
  t.teardown(remove);
  const name = join(path, 'lock');
  const [first, second] = [openSync(name, 'w'), openSync(name, 'r')];
  t.ok(flock(first, LOCK_EX));
  t.notOk(flock(second, LOCK_EX), 'somebody else has it');
  t.notOk(flock(second, LOCK_SH));
  closeSync(first);
  t.ok(flock(second, LOCK_SH));
  const third = openSync(name, 'r');
  t.ok(flock(third, LOCK_SH), 'shared');
  closeSync(second);
  closeSync(third);
  t.throws(() => flock(first, LOCK_EX), { code: 'EBADF' });
});

t.test('ioctl', { skip }, async (t) => {
  const [one, other] = socketPair();
  t.teardown(() => {
    closeSync(one);
    closeSync(other);
  });
  const FIONREAD = 0x541b;
  const TCGETS = 0x5401;
  writeSync(one, 'seven b');
  const count = Buffer.alloc(4);
  ioctlBuffer(other, FIONREAD, count);
  t.equal(count.readInt32LE(0), 7);
  t.throws(() => ioctlBuffer(one, TCGETS, Buffer.alloc(64)), { code: 'ENOTTY' });
  t.equal(receiveDescriptor(other), undefined, 'a message without a descriptor');
});

t.test('mounts', { skip }, async (t) => {
  const nowhere = { source: 'x', target: '/nowhere', type: 'tmpfs', flags: 0, data: '' };
  t.throws(() => mount(nowhere), { code: /ENOENT|EPERM/ });
  await t.rejects(umount('/nowhere', 0), { code: /ENOENT|EPERM/ });
});

t.test('addresses', async (t) => {
  const memory = Buffer.allocUnsafeSlow(8192);
  t.equal(addressOf(memory.subarray(5)) - addressOf(memory), 5n);
});

const library = join(PROJECT, 'node_modules/fuse-native/prebuilds/linux-x64/libfuse.so');
const lacking = existsSync(library) ? false : `nothing to try it with: no ${library}`;

/**
 * Regress: the library was unloaded by the garbage collector, now and then before it was needed.
 */
t.test('a preloaded library stays', { skip: skip || lacking }, async (t) => {
  const program = `
    const { preloadLibrary } = await import('./dist/modules/storage/libc.js');
    preloadLibrary(${JSON.stringify(library)});
    for (let round = 0; round < 5; round += 1) {
      gc();
      await new Promise((resolve) => setImmediate(resolve));
    }
    const { readFileSync } = await import('node:fs');
    console.log(readFileSync('/proc/self/maps', 'utf8').includes('libfuse.so'));`;
  const node = ['--expose-gc', '--input-type=module', '--eval', program];
  const result = await runProgram('node', node, {
    cwd: PROJECT,
    env: { NODE_OPTIONS: undefined },
  });
  t.same([result.stderr, result.stdout], ['', 'true\n']);
});
