/** Reading and writing disks through each channel, compared with an independent copy. */
import {
  constants,
  fsyncSync,
  readFileSync,
  readSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import {
  DISK_SIZE,
  errnoOfCall,
  overBothChannels,
  readBytes,
  run,
  withFile,
  writeBytes,
} from '../support/channel-fixture.js';
import { randomSource } from '../support/random-source.js';

const MiB = 1024 * 1024;

overBothChannels('random writes and reads equal a copy', (t, { disk, backing }) => {
  const seed = Number(process.env.SEED ?? 20_260_101);
  const random = randomSource(seed);
  const copy = Buffer.alloc(DISK_SIZE);
  withFile(disk, 'r+', (fd) => {
    for (let step = 0; step < 300; step += 1) {
      const length = 1 + random.below(step % 10 === 0 ? 2 * MiB : 20_000);
      const offset = random.below(DISK_SIZE - 1);
      const count = Math.min(length, DISK_SIZE - offset);
      if (random.below(3) > 0) {
        const bytes = random.bytes(count);
        t.equal(writeSync(fd, bytes, 0, count, offset), count);
        bytes.copy(copy, offset);
      } else {
        const target = Buffer.alloc(length);
        const read = readSync(fd, target, 0, length, offset);
        const same = target.subarray(0, read).equals(copy.subarray(offset, offset + count));
        t.ok(read === count && same, `read ${length} at ${offset}, seed ${seed}`);
      }
    }
    fsyncSync(fd);
  });
  t.ok(readFileSync(disk).equals(copy), 'through the mount');
  t.ok(readFileSync(backing).equals(copy), 'behind the mount');
});

overBothChannels('dd with odd and direct block sizes', (t, { disk, directory, kind }) => {
  const random = randomSource(7);
  const source = join(directory, 'source');
  const copy = join(directory, 'copy');
  writeFileSync(source, random.bytes(5 * MiB));
  writeFileSync(copy, '');
  truncateSync(copy, DISK_SIZE);
  const writes = [
    ['bs=777', 'count=1000'],
    ['bs=1234567', 'seek=1'],
    ['bs=512', 'oflag=direct', 'count=2000', 'seek=33'],
    ['bs=64k', 'oflag=direct', 'seek=100'],
    ['bs=1M', 'oflag=direct', 'seek=9'],
    ['bs=4k', 'oflag=dsync', 'count=20', 'seek=4000'],
  ];
  for (const parameters of writes) {
    for (const target of [disk, copy]) {
      run('dd', `if=${source}`, `of=${target}`, 'conv=notrunc', 'status=none', ...parameters);
    }
  }
  run('cmp', disk, copy);
  for (const parameters of [['bs=333'], ['bs=1M', 'iflag=direct']]) {
    const out = join(directory, 'out');
    run('dd', `if=${disk}`, `of=${out}`, 'status=none', ...parameters);
    run('cmp', out, copy);
  }
  t.pass(`${kind}: dd agrees`);
});

overBothChannels('large requests arrive whole', async (t, { disk, server, kind }) => {
  run('dd', 'if=/dev/zero', `of=${disk}`, 'bs=4M', 'count=2', 'conv=notrunc', 'status=none');
  run('dd', `if=${disk}`, 'of=/dev/null', 'bs=4M', 'count=2', 'iflag=direct', 'status=none');
  const { largestRead, largestWrite } = await server.counters();
  const expected = kind === 'kernel' ? MiB : 128 * 1024;
  t.equal(largestRead, expected, 'read');
  t.equal(largestWrite, expected, 'write');
});

overBothChannels('mapped memory is written back', async (t, { disk, backing, server }) => {
  run(
    'fio',
    ...[
      '--name=map',
      '--verify_state_save=0',
      `--filename=${disk}`,
      '--ioengine=mmap',
      '--rw=randwrite',
      '--bs=4k',
    ],
    ...['--size=4m', '--io_size=4m', '--verify=crc32c', '--end_fsync=1', '--fsync=64'],
  );
  run('cmp', '-n', String(4 * MiB), disk, backing);
  const { flushes } = await server.counters();
  t.ok((flushes ?? 0) > 0, 'msync reached the disk');
});

overBothChannels('writers at the same time do not disturb each other', (t, fixture) => {
  const { disk, backing } = fixture;
  for (const direct of ['0', '1']) {
    run(
      'fio',
      ...[
        '--name=many',
        '--verify_state_save=0',
        `--filename=${disk}`,
        '--rw=randrw',
        '--bsrange=512-64k',
      ],
      ...['--blockalign=512', '--numjobs=4', '--size=4m', '--offset_increment=4m'],
      ...['--verify=crc32c', '--verify_fatal=1', `--direct=${direct}`, '--ioengine=psync'],
    );
    run('cmp', disk, backing);
  }
  t.pass('fio found every block as it wrote it');
});

overBothChannels('a disk ends where it ends', (t, { disk }) => {
  const tail = Buffer.alloc(4096, 0x5a);
  t.equal(readBytes(disk, DISK_SIZE, 10).length, 0, 'read at the end');
  t.equal(readBytes(disk, DISK_SIZE - 5, 10).length, 5, 'read across the end');
  t.equal(writeBytes(disk, DISK_SIZE - 512, tail), 512, 'write across the end');
  const beyond = errnoOfCall(() => writeBytes(disk, DISK_SIZE, tail));
  t.equal(beyond, 'EFBIG', 'write at the end');
  t.equal(
    errnoOfCall(() => writeBytes(disk, 2 ** 50, tail)),
    'EFBIG',
    'far beyond',
  );
  t.equal(statSync(disk).size, DISK_SIZE);
  t.ok(readBytes(disk, DISK_SIZE - 512, 512).equals(tail.subarray(0, 512)));
});

overBothChannels('what is cached and what is direct agree', (t, { disk }) => {
  const random = randomSource(3);
  const block = random.bytes(4096);
  withFile(disk, 'r', (reader) => {
    const seen = Buffer.alloc(4096);
    readSync(reader, seen, 0, 4096, 0);
    withFile(disk, 'r+', (fd) => writeSync(fd, block, 0, 4096, 0));
    readSync(reader, seen, 0, 4096, 0);
    t.ok(seen.equals(block), 'another descriptor sees a write at once');
    run(
      'dd',
      'if=/dev/zero',
      `of=${disk}`,
      'bs=4k',
      'count=1',
      'oflag=direct',
      'conv=notrunc',
      'status=none',
    );
    readSync(reader, seen, 0, 4096, 0);
    t.ok(seen.equals(Buffer.alloc(4096)), 'a direct write drops what was cached');
  });
});

overBothChannels('fsync reaches the disk, and its failure the caller', async (t, fixture) => {
  const { disk, server, path } = fixture;
  const before = (await server.counters()).flushes ?? 0;
  withFile(disk, 'r+', (fd) => {
    writeSync(fd, Buffer.alloc(10), 0, 10, 0);
    fsyncSync(fd);
  });
  t.equal((await server.counters()).flushes, before + 1);
  withFile(path('unflushable'), 'r+', (fd) => {
    t.equal(
      errnoOfCall(() => fsyncSync(fd)),
      'EIO',
    );
    t.equal(
      errnoOfCall(() => fsyncSync(fd)),
      'EIO',
      'and again',
    );
  });
});

overBothChannels('synchronous writes are durable when they return', async (t, fixture) => {
  const { disk, server, kind } = fixture;
  for (const flag of ['sync', 'dsync', 'direct,sync', 'direct,dsync']) {
    const before = (await server.counters()).flushes ?? 0;
    const parameters = ['bs=4k', 'count=5', 'conv=notrunc', 'status=none', `oflag=${flag}`];
    run('dd', 'if=/dev/zero', `of=${disk}`, ...parameters);
    const flushes = ((await server.counters()).flushes ?? 0) - before;
    t.equal(flushes, 5, `${kind}, ${flag}`);
  }
});

overBothChannels('errors of the disk keep their errno', async (t, { path, server, kind }) => {
  const block = Buffer.alloc(4096);
  t.equal(
    errnoOfCall(() => writeBytes(path('full'), 0, block)),
    'ENOSPC',
  );
  t.equal(
    errnoOfCall(() => readBytes(path('unreadable'), 0, 4096)),
    'EIO',
  );
  t.equal(
    errnoOfCall(() => readBytes(path('buggy'), 0, 4096)),
    'EIO',
    'a bug, too',
  );
  t.equal(readBytes(path('full'), 0, 4096).length, 4096, 'the server goes on');
  const events = (await server.ask('events')).result as { level: string; stack?: string }[];
  const bug = events.find((event) => event.level === 'error');
  t.match(bug?.stack, /TypeError: a bug in the device/, `${kind}: the bug is told with its stack`);
});

overBothChannels('direct opens may be mixed with others', (t, { disk }) => {
  withFile(disk, constants.O_RDWR | constants.O_DIRECT, (direct) => {
    withFile(disk, 'r+', (fd) => t.equal(writeSync(fd, Buffer.alloc(100, 1), 0, 100, 50), 100));
    const seen = run('dd', `if=${disk}`, 'bs=4k', 'count=1', 'iflag=direct', 'status=none');
    t.equal(seen, `${'\0'.repeat(50)}${'\x01'.repeat(100)}${'\0'.repeat(4096 - 150)}`);
    t.doesNotThrow(() => fsyncSync(direct));
  });
});
