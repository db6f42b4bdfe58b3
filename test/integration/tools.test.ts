/**
 * The exposed raw file as ordinary tools see it: dd, cp, cmp, qemu-img, qemu-io, truncate,
 * fallocate.
 */
import { open, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { MiB } from '../../src/common/units.js';
import { ABILITIES, startDaemon, type TestDaemon, TRANSPORTS } from '../support/daemon.js';
import { cannotServe } from '../support/mount-guard.js';
import { createRandom, newSeed } from '../support/random.js';
import { ReferenceDisk } from '../support/reference-disk.js';
import { runProgram, tool } from '../support/run-program.js';
import { stampedPattern } from '../support/stamped-pattern.js';

const seed = newSeed();
/** Not a multiple of any block, page or cluster. */
const SIZE = 16 * MiB + 3 * 512;

/** The exposed file of a fresh VM and a model of what it must hold. */
async function freshDisk(t: Test, daemon: TestDaemon, vm: string) {
  await daemon.ok('create', vm, '--disk', String(SIZE));
  const path = await daemon.ok('path', vm);
  t.equal(path, daemon.rawFile(vm));
  return { path, model: new ReferenceDisk(SIZE) };
}

/** One dd of `data` to the place, by byte or sector as `flags` say. */
async function dd(data: Buffer, folder: string, args: readonly string[]): Promise<void> {
  const source = join(folder, 'dd-source');
  await writeFile(source, data);
  await tool('dd', [`if=${source}`, 'conv=notrunc', 'status=none', ...args]);
}

async function checkSame(t: Test, model: ReferenceDisk, path: string, what: string) {
  t.equal(model.difference(await readFile(path)), undefined, what);
}

async function checkFacts(t: Test, daemon: TestDaemon) {
  const { path } = await freshDisk(t, daemon, 'facts');
  const facts = await stat(path);
  t.ok(facts.isFile(), 'a regular file');
  t.equal(facts.size, SIZE);
  t.equal(facts.mode & 0o777, 0o600);
  t.ok(facts.blocks * 512 < MiB, 'an empty disk takes next to nothing');

  const grow = await runProgram('truncate', ['-s', '+1M', path]);
  t.not(grow.code, 0, 'the file cannot grow');
  const shrink = await runProgram('truncate', ['-s', '1M', path]);
  t.not(shrink.code, 0, 'nor shrink');
  const beyond = ['if=/dev/zero', `of=${path}`, 'bs=512', 'count=1', `seek=${SIZE / 512}`];
  t.not((await runProgram('dd', [...beyond, 'conv=notrunc'])).code, 0, 'no write past the end');
  t.equal((await stat(path)).size, SIZE, 'the size never changed');
  t.not((await runProgram('rm', ['-f', path])).code, 0, 'it cannot be removed by hand');
  t.not(
    (await runProgram('touch', [join(daemon.mountpoint, 'x')])).code,
    0,
    'nothing can be added',
  );

  const configuration = JSON.parse(
    await readFile(join(daemon.mountpoint, 'facts', 'vm.json'), 'utf8'),
  ) as { disks?: unknown[] };
  t.equal(configuration.disks?.length, 1, 'vm.json shows the configuration');
}

async function checkOddSizes(t: Test, daemon: TestDaemon) {
  const random = createRandom(seed);
  const { path, model } = await freshDisk(t, daemon, 'odd');
  for (let generation = 1; generation <= 40; generation += 1) {
    const length = 1 + random.below(random.pick([600, 5000, 70_000, 1_500_000]));
    const offset = random.below(SIZE - length);
    const data = stampedPattern(generation, offset, length);
    await dd(data, daemon.folder, [
      `of=${path}`,
      `bs=${length}`,
      `seek=${offset}`,
      'oflag=seek_bytes',
    ]);
    model.write(offset, data);
  }
  await checkSame(t, model, path, 'buffered writes of odd sizes');

  const offset = random.below(SIZE / 2);
  const length = 1 + random.below(SIZE / 4);
  const out = join(daemon.folder, 'dd-out');
  const range = [`skip=${offset}`, `count=${length}`, 'iflag=skip_bytes,count_bytes', 'bs=12345'];
  await tool('dd', [`if=${path}`, `of=${out}`, 'status=none', ...range]);
  t.ok(model.read(offset, length).equals(await readFile(out)), 'a read of an odd range');
}

async function checkDirect(t: Test, daemon: TestDaemon) {
  const random = createRandom(seed);
  const { path, model } = await freshDisk(t, daemon, 'direct');
  for (let generation = 1; generation <= 30; generation += 1) {
    const sectors = 1 + random.below(random.pick([8, 9, 300, 2100]));
    const sector = random.below(SIZE / 512 - sectors);
    const data = stampedPattern(generation, sector * 512, sectors * 512);
    const flag = random.pick(['direct', 'direct', 'direct,dsync']);
    const place = [`of=${path}`, `bs=${sectors * 512}`, `seek=${sector * 512}`];
    await dd(data, daemon.folder, [...place, `oflag=${flag},seek_bytes`]);
    model.write(sector * 512, data);
    // What the page cache holds must not survive a direct write.
    if (generation % 5 === 0)
      await checkSame(t, model, path, 'a buffered read after a direct write');
  }
  const out = join(daemon.folder, 'direct-out');
  await tool('dd', [`if=${path}`, `of=${out}`, 'iflag=direct', 'bs=512K', 'status=none']);
  await checkSame(t, model, out, 'a direct read of all');
}

async function checkCopies(t: Test, daemon: TestDaemon) {
  const { path, model } = await freshDisk(t, daemon, 'copies');
  const source = join(daemon.folder, 'copy-source');
  for (const offset of [0, 5 * MiB + 512, SIZE - 4096]) {
    model.write(offset, stampedPattern(1, offset, 4096));
  }
  await writeFile(source, model.bytes);
  await tool('qemu-img', ['convert', '-n', '-f', 'raw', '-O', 'raw', source, path]);
  await checkSame(t, model, path, 'qemu-img convert writes into it');
  const compared = await tool('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', source, path]);
  t.match(compared, /^Images are identical/);

  for (const sparse of ['always', 'auto']) {
    const copy = join(daemon.folder, `copy-${sparse}`);
    await tool('cp', [`--sparse=${sparse}`, path, copy]);
    await checkSame(t, model, copy, `cp --sparse=${sparse} copies it`);
    const taken = (await stat(copy)).blocks * 512;
    // cp finds holes by reading zeroes (always), or by asking where the data is (auto).
    if (sparse === 'always' || ABILITIES[daemon.transport].holes) {
      t.ok(taken < MiB, `and keeps its holes (${taken} bytes)`);
    }
  }
  // cp and dd open with O_TRUNC, which a block device ignores.
  const shorter = join(daemon.folder, 'shorter');
  await writeFile(shorter, stampedPattern(2, 0, 3 * MiB + 700));
  model.write(0, stampedPattern(2, 0, 3 * MiB + 700));
  await tool('cp', [shorter, path]);
  await checkSame(t, model, path, 'cp onto it replaces the bytes and not the size');
  await tool('dd', [`if=${shorter}`, `of=${path}`, 'bs=1M', 'status=none']);
  await checkSame(t, model, path, 'and so does dd');

  const tar = join(daemon.folder, 'copy.tar');
  await tool('tar', ['-S', '-cf', tar, '-C', join(path, '..'), 'disk0.raw']);
  await tool('tar', ['-xf', tar, '-C', daemon.folder]);
  await checkSame(t, model, join(daemon.folder, 'disk0.raw'), 'tar -S keeps its bytes');
}

async function checkHoles(t: Test, daemon: TestDaemon) {
  const { path, model } = await freshDisk(t, daemon, 'holes');
  const data = stampedPattern(1, 0, 4 * MiB);
  const file = await open(path, 'r+');
  try {
    await file.write(data, 0, data.length, 0);
    await file.sync();
  } finally {
    await file.close();
  }
  model.write(0, data);
  const punch = ['--punch-hole', '--offset', '1000000', '--length', '2000000', path];
  const punched = await runProgram('fallocate', punch);
  if (ABILITIES[daemon.transport].holes) {
    t.equal(punched.code, 0, punched.stderr);
    model.discard(1_000_000, 2_000_000);
    const zero = ['--zero-range', '--keep-size', '--offset', '512', '--length', '1024', path];
    await tool('fallocate', zero);
    model.discard(512, 1024);
  } else {
    t.not(punched.code, 0, 'refused rather than forgotten');
  }
  await checkSame(t, model, path, 'holes read as zeroes, the rest as before');
  const commands = ['write -P 0xaa 64k 64k', 'discard 64k 32k', 'read -P 0xaa 96k 32k', 'flush'];
  const zeroes = ABILITIES[daemon.transport].holes ? ['read -P 0 64k 32k'] : [];
  const args = [...commands, ...zeroes].flatMap((command) => ['-c', command]);
  const said = await tool('qemu-io', ['-f', 'raw', ...args, path]);
  t.notMatch(said, /Pattern verification failed/);
}

for (const transport of TRANSPORTS) {
  t.test(`over the ${transport} channel`, { skip: cannotServe() }, async (t) => {
    t.comment(`LAYERDISK_SEED=${seed}`);
    const daemon = await startDaemon(t, { transport });
    await t.test('it is a regular file of fixed size', (t) => checkFacts(t, daemon));
    await t.test('dd with odd sizes', (t) => checkOddSizes(t, daemon));
    await t.test('dd with O_DIRECT', (t) => checkDirect(t, daemon));
    await t.test('copies in and out', (t) => checkCopies(t, daemon));
    await t.test('holes', (t) => checkHoles(t, daemon));
  });
}
