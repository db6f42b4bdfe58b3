/**
 * Disks that are one raw file and that nobody writes to: the kernel reads the file by itself, and
 * nobody can tell but by the speed.
 */
import { readFileSync } from 'node:fs';
import { type FileHandle, open, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { MiB } from '../../src/common/units.js';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import { tool } from '../support/run-program.js';
import { stampedPattern } from '../support/stamped-pattern.js';
import { ask, cannotTakeOver, eventually, successor } from '../support/takeover.js';

const SIZE = 16 * MiB;
const CONTENT = stampedPattern(7, 0, SIZE);
/** What a daemon may read besides the disk while it answers an open and a few stats. */
const BESIDES = MiB;
const skip = cannotTakeOver();

/** Bytes that the serving process has read, disks and requests together. */
function bytesRead(daemon: TestDaemon): number {
  const said = readFileSync(`/proc/${daemon.servingPid}/io`, 'utf8');
  return Number(/^rchar: (\d+)$/m.exec(said)?.[1]);
}

/** @returns how many bytes the daemon read for it. */
async function readDisk(t: Test, daemon: TestDaemon, path: string, what: string): Promise<number> {
  const before = bytesRead(daemon);
  t.ok((await readFile(path)).equals(CONTENT), `${what}: the right bytes`);
  return bytesRead(daemon) - before;
}

async function importBase(daemon: TestDaemon, vm: string): Promise<void> {
  const base = join(daemon.folder, `${vm}.base`);
  await writeFile(base, CONTENT);
  await daemon.ok('import', base, vm);
  await daemon.ok('snapshot', 'take', `${vm}@flat`);
}

async function take(daemon: TestDaemon): Promise<void> {
  const former = daemon.servingPid;
  process.kill(former, 'SIGKILL');
  await eventually('the next daemon', () => successor(daemon, former));
  await ask(daemon, 'daemon.status', {});
}

async function withFile(path: string, flags: string, use: (file: FileHandle) => Promise<void>) {
  const file = await open(path, flags);
  try {
    await use(file);
  } finally {
    await file.close();
  }
}

async function checkReadOnlyDisk(t: Test, daemon: TestDaemon) {
  await daemon.ok('clone', 'vm@flat', 'golden', '--linked');
  await daemon.ok('set', 'golden', '--disk-kind', 'disk0=read-only');
  const disk = daemon.rawFile('golden');
  t.ok((await readDisk(t, daemon, disk, 'while it is read-only')) < BESIDES);
  await daemon.ok('set', 'golden', '--disk-kind', 'disk0=normal');
  t.ok((await readDisk(t, daemon, disk, 'when it no longer is')) >= SIZE - BESIDES);
}

t.test('flat disks', { skip, timeout: 120_000 }, async (t) => {
  const daemon = await startDaemon(t, { supervise: true });
  await importBase(daemon, 'vm');
  const flat = daemon.rawFile('vm', 'flat');

  t.ok((await readDisk(t, daemon, flat, 'a snapshot of a raw base')) < BESIDES, 'read by nobody');
  t.ok((await readDisk(t, daemon, daemon.rawFile('vm'), 'the disk')) >= SIZE, 'may be written');

  t.test('other ways to read', async (t) => {
    const before = bytesRead(daemon);
    const copy = join(daemon.folder, 'copy');
    await tool('dd', [`if=${flat}`, `of=${copy}`, 'bs=1M', 'iflag=direct', 'status=none']);
    t.ok((await readFile(copy)).equals(CONTENT), 'past the page cache');
    const mmap = ['--name=m', `--filename=${flat}`, '--rw=read', '--ioengine=mmap', '--readonly'];
    await tool('fio', [...mmap, '--bs=64k', '--size=16m']);
    await tool('cp', ['--sparse=always', flat, copy]);
    t.ok((await readFile(copy)).equals(CONTENT), 'by cp, which asks for holes');
    const device = await daemon.ok('attach', 'vm@flat');
    await tool('cmp', [device, copy]);
    await daemon.ok('detach', device);
    // Four times the disk was read; looking who has it open costs some, too.
    t.ok(bytesRead(daemon) - before < SIZE, 'none of that came through the daemon');
  });

  t.test('what is written later is in other files', async (t) => {
    await withFile(flat, 'r', async (held) => {
      await withFile(daemon.rawFile('vm'), 'r+', async (disk) => {
        await disk.write(Buffer.alloc(8192, 0xaa), 0, 8192, MiB);
        await disk.sync();
      });
      await daemon.ok('snapshot', 'take', 'vm@changed');
      const found = Buffer.alloc(8192);
      await held.read(found, 0, 8192, MiB);
      t.ok(found.equals(CONTENT.subarray(MiB, MiB + 8192)), 'not in the flat snapshot');
    });
    const changed = Buffer.from(CONTENT).fill(0xaa, MiB, MiB + 8192);
    const seen = await readFile(daemon.rawFile('vm', 'changed'));
    t.ok(seen.equals(changed), 'but in the later one, which is not flat');
    await t.rejects(open(flat, 'r+'), { code: 'EROFS' });
  });

  t.test('after a takeover', async (t) => {
    await withFile(flat, 'r', async (held) => {
      await take(daemon);
      const found = Buffer.alloc(SIZE);
      const before = bytesRead(daemon);
      await held.read(found, 0, SIZE, 0);
      t.ok(found.equals(CONTENT), 'an open file goes on');
      t.ok(bytesRead(daemon) - before < BESIDES, 'as it was');
      t.ok((await readDisk(t, daemon, flat, 'opened beside it')) < BESIDES);
    });
    t.ok((await readDisk(t, daemon, flat, 'opened when all were closed')) < BESIDES);
  });

  t.test('a read-only disk', (t) => checkReadOnlyDisk(t, daemon));
});

t.test('a flat disk that a takeover loses', { skip, timeout: 60_000 }, async (t) => {
  const daemon = await startDaemon(t, { supervise: true });
  await importBase(daemon, 'vm');
  const flat = daemon.rawFile('vm', 'flat');
  const base = join(daemon.folder, 'vm.base');
  await withFile(flat, 'r', async () => {
    await rename(base, `${base}.away`);
    await take(daemon);
    await rename(`${base}.away`, base);
    t.ok((await readFile(flat)).equals(CONTENT), 'opened again beside the one that was lost');
  });
  await eventually('its close', async () =>
    (await ask(daemon, 'daemon.status', {})).openDisks === 0 ? true : undefined,
  );
  t.ok((await readDisk(t, daemon, flat, 'opened when all were closed')) < BESIDES);
  await take(daemon);
  t.ok((await readDisk(t, daemon, flat, 'after one more takeover')) < BESIDES);
});

t.test('images that are no flat disk', { skip, timeout: 60_000 }, async (t) => {
  const daemon = await startDaemon(t);
  const raw = join(daemon.folder, 'raw');
  await writeFile(raw, CONTENT);
  for (const [format, kind] of [
    ['vdi', 'vdi'],
    ['vhd', 'vpc'],
  ] as const) {
    const image = join(daemon.folder, `image.${format}`);
    const options = kind === 'vpc' ? ['-o', 'subformat=fixed,force_size=on'] : [];
    await tool('qemu-img', ['convert', '-f', 'raw', '-O', kind, ...options, raw, image]);
    await daemon.ok('import', image, format);
    await daemon.ok('snapshot', 'take', `${format}@s`);
    t.ok((await readDisk(t, daemon, daemon.rawFile(format, 's'), format)) >= SIZE);
  }
});
