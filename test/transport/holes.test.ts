/** Holes: fallocate gives space back, lseek finds data, and tools see both. */
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { fallocate, lseek, SEEK_DATA, SEEK_HOLE } from '../../src/storage/libc.js';
import {
  DISK_SIZE,
  type Fixture,
  openFixture,
  overBothChannels,
  readBytes,
  run,
  withFile,
  writeBytes,
} from '../support/channel-fixture.js';
import { cannotMount } from '../support/disk-server.js';

const MiB = 1024 * 1024;
const FALLOCATE = 'fallocate';

function fill(disk: string): void {
  writeBytes(disk, 0, Buffer.alloc(DISK_SIZE, 0xaa));
}

overBothChannels(
  'punching and zeroing give space back and read as zeroes',
  (t, { disk, backing }) => {
    for (const mode of ['--punch-hole', '--zero-range']) {
      fill(disk);
      const before = statSync(disk).blocks;
      run(FALLOCATE, mode, '--offset', '1M', '--length', '4M', disk);
      t.ok(readBytes(disk, MiB, 4 * MiB).equals(Buffer.alloc(4 * MiB)), mode);
      t.equal(readBytes(disk, MiB - 1, 1)[0], 0xaa, 'not before');
      t.equal(readBytes(disk, 5 * MiB, 1)[0], 0xaa, 'not after');
      t.ok(statSync(disk).blocks <= before - (4 * MiB) / 512, 'st_blocks');
      run('cmp', disk, backing);
    }
    run(FALLOCATE, '--punch-hole', '--offset', '100', '--length', '5000', disk);
    t.ok(readBytes(disk, 100, 5000).equals(Buffer.alloc(5000)), 'odd edges');
    t.equal(readBytes(disk, 99, 1)[0], 0xaa);
    t.equal(readBytes(disk, 5100, 1)[0], 0xaa);
    t.equal(statSync(disk).size, DISK_SIZE);
  },
  FALLOCATE,
);

overBothChannels(
  'fallocate never changes the size of a disk',
  (t, { disk, snapshot }) => {
    const KEEP = 1;
    const PUNCH = 2;
    const ZERO = 16;
    const tryMode = (mode: number, offset: number, length: number) =>
      withFile(disk, 'r+', (fd) => {
        try {
          fallocate(fd, mode, offset, length);
          return 'done';
        } catch (error) {
          return (error as NodeJS.ErrnoException).code;
        }
      });
    t.equal(tryMode(0, 0, DISK_SIZE), 'done', 'allocation within');
    t.equal(tryMode(0, 0, DISK_SIZE + 1), 'EFBIG', 'allocation beyond');
    t.equal(tryMode(KEEP, DISK_SIZE, 1), 'EFBIG');
    t.equal(tryMode(ZERO, DISK_SIZE - 512, 513), 'EFBIG');
    t.equal(tryMode(ZERO | KEEP, DISK_SIZE - 512, 2 * MiB), 'done', 'clamped');
    t.equal(tryMode(PUNCH | KEEP, DISK_SIZE + MiB, MiB), 'done', 'nothing there');
    t.equal(tryMode(8, 0, 4096), 'ENOTSUP', 'collapsing');
    t.equal(tryMode(32, 0, 4096), 'ENOTSUP', 'inserting');
    t.equal(statSync(disk).size, DISK_SIZE);
    t.throws(() => run(FALLOCATE, '--punch-hole', '--length', '4096', snapshot), /Read-only/);
  },
  FALLOCATE,
);

overBothChannels(
  'lseek finds data and holes',
  (t, { disk }) => {
    writeBytes(disk, 4 * MiB, Buffer.alloc(MiB, 1));
    withFile(disk, 'r', (fd) => {
      const seek = (offset: number, whence: number) => {
        try {
          return lseek(fd, offset, whence);
        } catch (error) {
          return (error as NodeJS.ErrnoException).code;
        }
      };
      t.equal(seek(0, SEEK_DATA), 4 * MiB);
      t.equal(seek(0, SEEK_HOLE), 0);
      t.equal(seek(4 * MiB + 5, SEEK_DATA), 4 * MiB + 5);
      t.equal(seek(4 * MiB, SEEK_HOLE), 5 * MiB);
      t.equal(seek(5 * MiB, SEEK_DATA), 'ENXIO', 'no more data');
      t.equal(seek(DISK_SIZE - 1, SEEK_HOLE), DISK_SIZE - 1);
      t.equal(seek(DISK_SIZE, SEEK_DATA), 'ENXIO');
      t.equal(seek(DISK_SIZE, SEEK_HOLE), 'ENXIO');
      t.equal(seek(0, 2), DISK_SIZE, 'the end');
    });
  },
  'lseek',
);

function scatter({ disk }: Fixture): void {
  for (const [index, offset] of [0, 3 * MiB, 9 * MiB + 4096, 15 * MiB].entries()) {
    writeBytes(disk, offset, Buffer.alloc(300_000, index + 1));
  }
}

overBothChannels(
  'sparse copies stay sparse and equal',
  (t, fixture) => {
    const { disk, directory } = fixture;
    scatter(fixture);
    const out = (name: string) => join(directory, name);
    run('cp', '--sparse=auto', disk, out('cp'));
    run('qemu-img', 'convert', '-f', 'raw', '-O', 'raw', disk, out('qemu-img'));
    run('tar', '-C', directory, '-Scf', out('tar'), '--transform', 's,.*,unpacked,', disk);
    run('tar', '-C', directory, '-Sxf', out('tar'));
    for (const name of ['cp', 'qemu-img', 'unpacked']) {
      run('cmp', disk, out(name));
      t.ok(statSync(out(name)).blocks < (4 * MiB) / 512, `${name} is sparse`);
    }
    const map = JSON.parse(run('qemu-img', 'map', '-f', 'raw', '--output=json', disk));
    t.equal(map.filter((run: { data: boolean }) => run.data).length, 4);
  },
  'lseek',
);

overBothChannels('writing a whole image with tools', (t, { disk, directory, backing }) => {
  const source = join(directory, 'source.raw');
  run('truncate', '-s', '8M', source);
  writeBytes(source, MiB, Buffer.alloc(2 * MiB, 0x42));
  run('qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'raw', source, disk);
  run('cmp', '-n', String(8 * MiB), source, disk);
  run('cmp', disk, backing);
  run('cp', '--sparse=never', source, disk);
  run('cmp', '-n', String(8 * MiB), source, disk);
  t.equal(statSync(disk).size, DISK_SIZE);
});

t.test('with write-back caching', { skip: cannotMount() ?? false }, async (t) => {
  const fixture = await openFixture(t, 'kernel', { writeback: true });
  const { disk, directory } = fixture;
  withFile(disk, 'r+', () => {
    scatter(fixture);
    run('cp', '--sparse=auto', disk, join(directory, 'copy'));
    run('cmp', disk, join(directory, 'copy'));
    const copy = readFileSync(join(directory, 'copy'));
    t.equal(copy[3 * MiB], 2, 'dirty pages are not taken for holes');
  });
});
