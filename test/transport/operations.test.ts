/** What operations mean on a disk of fixed size, without any mount. */
import t from 'tap';
import { errnoName } from '../../src/common/errors.js';
import type { BlockDevice } from '../../src/engine/block-device.js';
import type { NodeAttr } from '../../src/transport/namespace.js';
import {
  checkAttributeChange,
  fallocateDevice,
  readDevice,
  SEEK_DATA,
  SEEK_HOLE,
  seekDevice,
  writeDevice,
} from '../../src/transport/operations.js';

const SIZE = 1000;

/** Remembers what it was asked for. */
class Recorder implements BlockDevice {
  readonly size = SIZE;
  readonly allocatedSize = 0;
  readonly readOnly: boolean;
  readonly calls: string[] = [];

  constructor(readOnly = false) {
    this.readOnly = readOnly;
  }

  read(_target: Buffer, targetOffset: number, offset: number, length: number): void {
    this.calls.push(`read ${targetOffset} ${offset} ${length}`);
  }

  write(_source: Buffer, sourceOffset: number, offset: number, length: number): void {
    this.calls.push(`write ${sourceOffset} ${offset} ${length}`);
  }

  discard(offset: number, length: number): void {
    this.calls.push(`discard ${offset} ${length}`);
  }

  flush(): void {
    this.calls.push('flush');
  }

  nextData(offset: number): number {
    return offset < 500 ? 500 : -1;
  }

  nextHole(offset: number): number {
    return offset;
  }
}

const nothing = Buffer.alloc(0);

/** errno name with which `action` fails. */
function failure(action: () => unknown): string | undefined {
  try {
    action();
    return undefined;
  } catch (error) {
    return errnoName(error);
  }
}

t.test('reads are cut at the end', async (t) => {
  const device = new Recorder();
  t.equal(readDevice(device, nothing, 16, 0, 100), 100);
  t.equal(readDevice(device, nothing, 16, 990, 100), 10);
  t.equal(readDevice(device, nothing, 16, SIZE, 100), 0);
  t.equal(readDevice(device, nothing, 16, 2 ** 60, 100), 0);
  t.equal(readDevice(device, nothing, 16, 5, 0), 0);
  t.strictSame(device.calls, ['read 16 0 100', 'read 16 990 10']);
});

t.test('writes are cut at the end, and fail from there on', async (t) => {
  const device = new Recorder();
  t.equal(writeDevice(device, nothing, 80, 0, 100), 100);
  t.equal(writeDevice(device, nothing, 80, 990, 100), 10);
  t.equal(writeDevice(device, nothing, 80, SIZE, 0), 0);
  t.equal(
    failure(() => writeDevice(device, nothing, 80, SIZE, 1)),
    'EFBIG',
  );
  t.strictSame(device.calls, ['write 80 0 100', 'write 80 990 10']);
  t.equal(
    failure(() => writeDevice(new Recorder(true), nothing, 80, 0, 1)),
    'EROFS',
  );
});

t.test('fallocate', async (t) => {
  const device = new Recorder();
  fallocateDevice(device, 0x03, 900, 500);
  fallocateDevice(device, 0x03, SIZE, 500);
  fallocateDevice(device, 0x11, 10, 20);
  fallocateDevice(device, 0x10, 10, 990);
  fallocateDevice(device, 0, 0, SIZE);
  fallocateDevice(device, 1, 0, SIZE);
  t.strictSame(device.calls, ['discard 900 100', 'discard 10 20', 'discard 10 990']);
  for (const mode of [0, 1, 0x10]) {
    t.equal(
      failure(() => fallocateDevice(device, mode, 1, SIZE)),
      'EFBIG',
      `mode ${mode}`,
    );
  }
  for (const mode of [0x02, 0x08, 0x20, 0x40, 0x12]) {
    t.equal(
      failure(() => fallocateDevice(device, mode, 0, 1)),
      'EOPNOTSUPP',
      `mode ${mode}`,
    );
  }
  t.equal(
    failure(() => fallocateDevice(new Recorder(true), 0, 0, 1)),
    'EROFS',
  );
});

t.test('lseek', async (t) => {
  const device = new Recorder();
  t.equal(seekDevice(device, 0, SEEK_DATA), 500);
  t.equal(seekDevice(device, 7, SEEK_HOLE), 7);
  t.equal(
    failure(() => seekDevice(device, 600, SEEK_DATA)),
    'ENXIO',
  );
  t.equal(
    failure(() => seekDevice(device, SIZE, SEEK_HOLE)),
    'ENXIO',
  );
  t.equal(
    failure(() => seekDevice(device, 0, 0)),
    'EINVAL',
  );
});

t.test('attributes', async (t) => {
  const attr: NodeAttr = {
    ...{ node: { hi: 1, lo: 2 }, kind: 'file', size: SIZE, allocatedSize: 0 },
    ...{ mode: 0o600, uid: 5, gid: 6, mtime: 0, nlink: 1 },
  };
  for (const change of [{}, { size: SIZE }, { mode: 0o100600 }, { uid: 5, gid: 6 }]) {
    t.doesNotThrow(() => checkAttributeChange(attr, change), JSON.stringify(change));
  }
  t.doesNotThrow(() => checkAttributeChange(attr, { size: 0, truncatingOpen: true }));
  for (const change of [
    ...[{ size: 0 }, { size: SIZE + 1 }, { size: 1, truncatingOpen: true }],
    ...[{ mode: 0o644 }, { uid: 0 }, { gid: 0 }],
  ]) {
    t.equal(
      failure(() => checkAttributeChange(attr, change)),
      'EPERM',
      JSON.stringify(change),
    );
  }
});
