/**
 * Disks exported through daemon and command line: what qemu-img sees in them, and what is refused.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { link, mkdir, open, readdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import t, { type Test } from 'tap';
import { KiB, MiB } from '../../src/common/units.js';
import { FORMAT_NAMES, writingOf } from '../../src/formats/registry.js';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import { cannotServe, mountOn } from '../support/mount-guard.js';
import { checkPrefix, readNumbers, SECTORS, startWriter } from '../support/numbered-writer.js';
import { checkRefusal, EXIT, stateOf } from '../support/refusal.js';
import { tool } from '../support/run-program.js';
import { stampedPattern } from '../support/stamped-pattern.js';

const SIZE = 40 * MiB + 5 * 512;
/** QEMU's names of formats that are called otherwise here. */
const QEMU_NAMES: Readonly<Record<string, string>> = { vhd: 'vpc' };

async function write(path: string, generation: number, ranges: readonly [number, number][]) {
  const file = await open(path, 'r+');
  for (const [offset, length] of ranges) {
    await file.write(stampedPattern(generation, offset, length), 0, length, offset);
  }
  await file.sync();
  await file.close();
}

/** A qcow2 image in a folder of its own, imported as `web` and changed in many places. */
async function prepare(daemon: TestDaemon): Promise<string> {
  const folder = join(daemon.folder, 'images');
  await mkdir(folder);
  const raw = join(daemon.folder, 'content.raw');
  await writeFile(raw, '');
  await tool('truncate', ['-s', String(SIZE), raw]);
  await write(raw, 1, [
    [0, 3 * MiB],
    [17 * MiB + 512, 2 * MiB],
    [SIZE - 512, 512],
  ]);
  const base = join(folder, 'base.qcow2');
  await tool('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', raw, base]);
  await daemon.ok('import', base, 'web');
  await write(daemon.rawFile('web'), 2, [
    [512, 512],
    [MiB - 700, 9000],
    [9 * MiB, 300 * KiB],
  ]);
  await daemon.ok('snapshot', 'take', 'web@first');
  const head = daemon.rawFile('web');
  await write(head, 3, [
    [2 * MiB, 70 * KiB],
    [SIZE - 3 * 512, 512],
  ]);
  await tool('fallocate', ['--punch-hole', '-o', String(17 * MiB), '-l', String(MiB), head]);
  return base;
}

async function checkSame(t: Test, raw: string, image: string, format: string, what: string) {
  const name = QEMU_NAMES[format] ?? format;
  const said = await tool('qemu-img', ['compare', '-f', 'raw', '-F', name, raw, image]);
  t.match(said, /identical/, what);
}

/** Every file of a folder, for "nothing is left behind". */
async function listing(folder: string): Promise<string[]> {
  return (await readdir(folder)).sort();
}

t.test('exports', { skip: cannotServe(), timeout: 300_000 }, async (t) => {
  const daemon = await startDaemon(t);
  const base = await prepare(daemon);
  const head = daemon.rawFile('web');
  const out = join(daemon.folder, 'out');
  await mkdir(out);

  for (const format of FORMAT_NAMES) {
    await t.test(`whole, as ${format}`, async (t) => {
      for (const subformat of writingOf(format)?.subformats ?? []) {
        const path = join(out, `${subformat}.${format}`);
        const view = await daemon.json('export', 'web', path, '--subformat', subformat);
        t.match(view, { path, format, subformat });
        await checkSame(t, head, path, format, `${format} ${subformat}, the present state`);
      }
    });
  }
  await t.test('a snapshot, the format told by the name', async (t) => {
    const path = join(out, 'first.img');
    t.match(await daemon.ok('export', 'web@first', path), /^exported web@first to .*: raw/);
    t.ok((await readFile(path)).equals(await readFile(daemon.rawFile('web', 'first'))), 'content');
    const { blocks, mode } = await stat(path);
    t.ok(blocks * 512 < 8 * MiB, 'sparse');
    t.equal(mode & 0o777, 0o600, 'private, as the raw files are');
    const full = join(out, 'full.raw');
    await daemon.ok('export', 'web@first', full, '--allocation', 'static');
    t.ok((await stat(full)).blocks * 512 >= SIZE, 'static takes all its space');
  });
  await t.test('the chain can be compared when it is longer', async (t) => {
    await checkDifferencing(t, daemon, base);
  });
  await t.test('replacing with --force', async (t) => {
    const path = join(out, 'first.img');
    await daemon.ok('export', 'web', path, '--force', '-q');
    t.ok((await readFile(path)).equals(await readFile(head)), 'replaced');
    const way = join(out, 'way.raw');
    await symlink(path, way);
    await daemon.ok('export', 'web@first', way, '--force');
    t.ok((await readFile(path)).equals(await readFile(daemon.rawFile('web', 'first'))), 'by link');
  });
  t.notMatch((await listing(out)).join(), /\.part/, 'no temporary files');
});

async function checkDifferencing(t: Test, daemon: TestDaemon, base: string) {
  const before = await readFile(base);
  const head = daemon.rawFile('web');
  const child = join(dirname(base), 'child.qcow2');
  await daemon.ok('export', 'web', child, '--differencing');
  await checkSame(t, head, child, 'qcow2', 'the child shows what the disk shows');
  t.match(await tool('qemu-img', ['check', child]), /No errors/);
  const info = JSON.parse(await tool('qemu-img', ['info', '--output=json', child])) as object;
  t.match(info, { 'backing-filename': 'base.qcow2', 'backing-filename-format': 'qcow2' });
  t.ok((await stat(child)).blocks * 512 < 2 * MiB, 'it holds the changes alone');
  const elsewhere = join(daemon.folder, 'out', 'child.qcow2');
  const snapshot = daemon.rawFile('web', 'first');
  await daemon.ok('export', 'web@first', elsewhere, '--differencing', '--subformat', 'compressed');
  await checkSame(t, snapshot, elsewhere, 'qcow2', 'and that of a snapshot, in another folder');
  await daemon.ok('import', child, 'home');
  t.ok((await readFile(daemon.rawFile('home'))).equals(await readFile(head)), 'imported again');
  await write(daemon.rawFile('home'), 4, [[5 * MiB, 4096]]);
  const grandchild = join(dirname(base), 'grandchild.qcow2');
  await daemon.ok('export', 'home', grandchild, '--differencing');
  await checkSame(t, daemon.rawFile('home'), grandchild, 'qcow2', 'a child of the child');
  t.ok((await readFile(base)).equals(before), 'the base is as it was');
}

/**
 * Commands, their exit codes, and what the error line names. OUT is a folder with `there.raw`,
 * `base` and `hard` (links to the base), `nowhere` (a link) and `fifo`.
 */
const REFUSED: readonly (readonly [string, number, RegExp])[] = [
  ['nosuch OUT/x.raw', EXIT.notFound, /nosuch/],
  ['web@nosuch OUT/x.raw', EXIT.notFound, /nosuch/],
  ['web OUT/x.raw --disk nosuch', EXIT.notFound, /nosuch/],
  ['web OUT/nosuch/x.raw', EXIT.notFound, /nosuch/],
  ['web OUT/there.raw/x.raw', EXIT.notFound, /there\.raw/],
  ['web OUT/x', EXIT.usage, /OUT|x/],
  ['web OUT/x.iso', EXIT.usage, /x\.iso/],
  ['web OUT/x.raw --format iso', EXIT.usage, /iso/],
  ['web OUT/x.qcow2 --subformat sparse', EXIT.usage, /qcow2.*sparse/],
  ['web OUT/x.raw --allocation both', EXIT.usage, /both/],
  ['web OUT/x.raw --allocation static --subformat sparse', EXIT.usage, /sparse/],
  ['web OUT/x.qcow2 --allocation static', EXIT.notSupported, /qcow2/],
  ['web OUT/x.raw --differencing', EXIT.notSupported, /raw/],
  ['web OUT/x.qcow2 --differencing --allocation static', EXIT.usage, /differencing/],
  ['own OUT/x.qcow2 --differencing', EXIT.usage, /own/],
  ['web OUT/there.raw', EXIT.exists, /there\.raw/],
  ['web OUT/nowhere --format raw --force', EXIT.exists, /nowhere/],
  ['web OUT --format raw --force', EXIT.usage, /out/],
  ['web OUT/fifo --format raw --force', EXIT.usage, /fifo/],
  ['web /dev/null --format raw --force', EXIT.usage, /null/],
  ['web BASE', EXIT.exists, /base\.qcow2/],
  ['web BASE --force', EXIT.exists, /base\.qcow2/],
  ['own OUT/hard --format raw --force', EXIT.exists, /hard/],
  ['own OUT/base --format raw --force', EXIT.exists, /base/],
  ['web BASE --differencing --force', EXIT.exists, /base\.qcow2/],
  ['web STORE/x.raw', EXIT.usage, /x\.raw/],
  ['web STORE/vms/web.json --format raw --force', EXIT.usage, /web\.json/],
  ['web OUT/store/x.raw', EXIT.usage, /x\.raw/],
  ['web MOUNTPOINT/web/disk0.raw --force', EXIT.usage, /disk0\.raw/],
];

t.test('refused', { skip: cannotServe(), timeout: 300_000 }, async (t) => {
  const daemon = await startDaemon(t);
  const base = await prepare(daemon);
  const out = join(daemon.folder, 'out');
  await mkdir(out);
  await daemon.ok('create', 'own', '--disk', '1M');
  await writeFile(join(out, 'there.raw'), 'precious');
  await link(base, join(out, 'hard'));
  await symlink(base, join(out, 'base'));
  await symlink(join(out, 'gone'), join(out, 'nowhere'));
  await symlink(daemon.store, join(out, 'store'));
  await tool('mkfifo', [join(out, 'fifo')]);
  const before = { files: await listing(out), base: await readFile(base) };
  const state = await stateOf(daemon);
  const places = { OUT: out, BASE: base, STORE: daemon.store, MOUNTPOINT: daemon.mountpoint };
  for (const [command, code, about] of REFUSED) {
    await t.test(command, async (t) => {
      const words = Object.entries(places).reduce(
        (text, [word, path]) => text.replace(word, path),
        command,
      );
      checkRefusal(t, await daemon.quick(['export', ...words.split(' ')]), [code], about);
    });
  }
  t.same(await stateOf(daemon), state, 'the store is as it was');
  t.same(await listing(out), before.files, 'nothing was left behind');
  t.ok((await readFile(base)).equals(before.base), 'the base is as it was');
  t.equal(await readFile(join(out, 'there.raw'), 'utf8'), 'precious');

  await t.test('a changed base', async (t) => {
    const file = await open(base, 'r+');
    await file.write(Buffer.from('x'), 0, 1, 200_000).finally(() => file.close());
    const path = join(out, 'x.qcow2');
    const result = await daemon.cli(['export', 'web', path, '--differencing']);
    checkRefusal(t, result, [EXIT.damaged], /base\.qcow2/);
    t.same(await listing(out), before.files, 'nothing was left behind');
  });
});

t.test('stopped on the way', { skip: cannotServe(), timeout: 300_000 }, async (t) => {
  const daemon = await startDaemon(t);
  await daemon.ok('create', 'web', '--disk', '96M');
  const head = daemon.rawFile('web');
  const noise = randomBytes(MiB);
  const file = await open(head, 'r+');
  for (let at = 0; at < 96; at += 1) await file.write(noise, 0, MiB, at * MiB);
  await file.close();

  await t.test('by a full file system', async (t) => {
    const small = join(daemon.folder, 'small');
    await mountOn(t, 'tmpfs', small, ['-t', 'tmpfs', '-o', 'size=16m']);
    for (const name of ['web.raw', 'web.ova']) {
      const result = await daemon.cli(['export', 'web', join(small, name)]);
      checkRefusal(t, result, [EXIT.failed], new RegExp(`/small/${name}.*ENOSPC`));
      t.same(await listing(small), [], 'nothing is left behind');
    }
  });
  await t.test('by ctrl-C', async (t) => {
    const out = join(daemon.folder, 'out');
    await mkdir(out);
    for (const words of [['web.qcow2', '--subformat', 'compressed'], ['web.ova']]) {
      const args = ['export', 'web', join(out, words[0] ?? ''), ...words.slice(1)];
      const { code, said } = await interrupted(daemon, args, (child) => child.kill('SIGINT'));
      t.equal(code, 130, said);
      t.match(said, /exporting web: \d+ %/, 'progress was told');
      t.same(await listing(out), [], 'nothing is left behind');
    }
  });
  t.equal(await daemon.ok('list', '-q'), 'web', 'the daemon goes on');
  await t.test('by the death of the daemon', async (t) => {
    const out = join(daemon.folder, 'died');
    await mkdir(out);
    const there = join(out, 'there.vmdk');
    await writeFile(there, 'precious');
    for (const name of ['web.qcow2', 'web.ova', 'there.vmdk']) {
      const args = ['export', 'web', join(out, name), '--force'];
      const { code, said } = await interrupted(daemon, args, () => daemon.kill());
      t.equal(code, EXIT.unreachable, said);
      t.same(await listing(out), ['there.vmdk'], 'nothing is left behind');
      t.equal(await readFile(there, 'utf8'), 'precious');
      await daemon.start();
    }
  });
});

/** Runs a command and does something about it at its first sign of progress. */
async function interrupted(
  daemon: TestDaemon,
  args: readonly string[],
  act: (child: ChildProcess) => unknown,
) {
  const main = new URL('../../dist/cli/main.js', import.meta.url).pathname;
  const { NODE_OPTIONS: _, ...env } = process.env;
  const places = { LAYERDISK_STORE: daemon.store, LAYERDISK_SOCKET: daemon.socket };
  const words = [main, ...args, '--progress', 'plain'];
  const child = spawn('node', words, { env: { ...env, ...places }, stdio: 'pipe' });
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => {
    if (said === '') void act(child);
    said += chunk.toString();
  });
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  return { code, said };
}

t.test('while somebody writes', { skip: cannotServe(), timeout: 300_000 }, async (t) => {
  const daemon = await startDaemon(t);
  await daemon.ok('create', 'web', '--disk', String(SECTORS * 512));
  const writer = await startWriter(t, 'buffered', [daemon.rawFile('web')]);
  for (let count = 0; count < 3; count += 1) {
    const path = join(daemon.folder, `${count}.raw`);
    await daemon.ok('export', 'web', path);
    const last = checkPrefix(t, await readNumbers(t, [path]), `export ${count}`);
    t.ok(last > 0, 'something was written by then');
  }
  await writer.stop();
});
