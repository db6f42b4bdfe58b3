/**
 * Snapshots taken while somebody writes hold the state of one instant: a writer puts down 1, 2, 3,
 * ... in order, over two disks, and every snapshot must hold exactly the numbers up to some number.
 */
import { closeSync, constants, openSync, readFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import { MiB } from '../../src/common/units.js';
import { startDaemon, type TestDaemon, TRANSPORTS } from '../support/daemon.js';
import { mapForWriting } from '../support/memory-map.mjs';
import { cannotServe } from '../support/mount-guard.js';
import { checkPrefix, readNumbers, startWriter } from '../support/numbered-writer.js';
import { createRandom } from '../support/random.js';
import { checkRefusal, EXIT } from '../support/refusal.js';
import { runProgram, tool } from '../support/run-program.js';
import { ask } from '../support/takeover.js';

const LONG = process.env.LAYERDISK_LONG === '1';
const SNAPSHOTS = LONG ? 200 : 20;
const DISKS = ['a', 'b'];

async function checkWriter(t: Test, daemon: TestDaemon, mode: 'direct' | 'buffered') {
  const vm = `numbered-${mode}`;
  await daemon.ok('create', vm, ...DISKS.flatMap((disk) => ['--disk', `${disk}=4M`]));
  const heads = DISKS.map((disk) => daemon.rawFile(vm, undefined, disk));
  const writer = await startWriter(t, mode, heads);
  for (let count = 0; count < SNAPSHOTS; count += 1) {
    await daemon.ok('snapshot', 'take', `${vm}@s${count}`);
  }

  // A restore under somebody's hands is refused and changes nothing.
  const refused = await daemon.cli(['snapshot', 'restore', `${vm}@s0`, '--discard']);
  checkRefusal(t, refused, [EXIT.busy], new RegExp(vm));
  const { last: written } = await writer.stop();

  const now = checkPrefix(t, await readNumbers(t, heads), 'the current state');
  t.equal(now, written, 'nothing that was acknowledged is lost');
  let before = 0;
  for (let count = 0; count < SNAPSHOTS; count += 1) {
    const files = DISKS.map((disk) => daemon.rawFile(vm, `s${count}`, disk));
    const last = checkPrefix(t, await readNumbers(t, files), `snapshot ${count}`);
    t.ok(last >= before, 'snapshots are in order');
    before = last;
  }
  t.ok(now > before, 'writing went on after the last snapshot');
  await checkRestore(t, daemon, vm, heads);
}

/** The page cache holds the current state: none of it may show after a restore. */
async function checkRestore(t: Test, daemon: TestDaemon, vm: string, heads: readonly string[]) {
  const middle = `s${SNAPSHOTS / 2}`;
  const frozen = DISKS.map((disk) => daemon.rawFile(vm, middle, disk));
  const wanted = await readNumbers(t, frozen);
  const current = await readNumbers(t, heads);
  await daemon.ok('snapshot', 'restore', `${vm}@${middle}`, '--save-current', 'kept');
  t.same(await readNumbers(t, heads), wanted, 'restored to the snapshot, not to a cached page');
  const kept = DISKS.map((disk) => daemon.rawFile(vm, 'kept', disk));
  t.same(await readNumbers(t, kept), current, 'what was current is saved');
  await daemon.ok('snapshot', 'restore', `${vm}@kept`, '--discard');
  t.same(await readNumbers(t, heads), current, 'and comes back');
}

/** fio verifies what it wrote while snapshots come and go under it. */
async function checkFio(t: Test, daemon: TestDaemon) {
  await daemon.ok('create', 'busy', '--disk', '64M');
  const path = await daemon.ok('path', 'busy');
  const options = [
    '--name=busy',
    `--filename=${path}`,
    ...['--rw=randwrite', '--bsrange=512-64k', '--blockalign=512', '--size=16m'],
    ...['--offset_increment=16m', '--numjobs=4', '--group_reporting', '--direct=1'],
    ...['--ioengine=libaio', '--iodepth=4', '--verify=crc32c', '--verify_fatal=1'],
    ...['--fallocate=none', '--overwrite=1', '--output-format=terse', '--loops=2'],
  ];
  let running = true;
  const fio = runProgram('fio', options, { cwd: daemon.folder, timeoutMs: 600_000 }).finally(() => {
    running = false;
  });
  let count = 0;
  for (; running; count += 1) {
    await daemon.ok('snapshot', 'take', `busy@s${count}`);
    if (count >= 3) await daemon.ok('snapshot', 'delete', `busy@s${count - 3}`);
  }
  const result = await fio;
  t.equal(result.code, 0, `fio found no wrong block: ${result.stdout}${result.stderr}`);
  t.comment(`${count} snapshots while fio ran`);
  const last = `s${count - 1}`;
  await daemon.ok('snapshot', 'restore', `busy@${last}`, '--discard');
  t.equal(await tool('cmp', [path, daemon.rawFile('busy', last)]), '');
}

/**
 * What was written through a mapping is nowhere but in the kernel's page cache.
 * @param flags of the open, for open(2): with O_DIRECT nobody else has use for that cache.
 */
async function checkMapped(t: Test, daemon: TestDaemon, vm: string, flags: number) {
  const size = 2 * MiB;
  await daemon.ok('create', vm, '--disk', String(size));
  const random = createRandom(SNAPSHOTS);
  const model = Buffer.alloc(size);
  const wanted: Buffer[] = [];
  const fd = openSync(daemon.rawFile(vm), constants.O_RDWR | flags);
  const mapping = mapForWriting(fd, size);
  for (let count = 0; count < SNAPSHOTS; count += 1) {
    for (let write = 0; write < 100; write += 1) {
      const bytes = random.bytes(1 + random.below(5000));
      const at = random.below(size - bytes.length);
      mapping.write(at, bytes);
      bytes.copy(model, at);
    }
    await ask(daemon, 'snapshot.take', { vm, snapshot: `s${count}` });
    wanted.push(Buffer.from(model));
  }
  mapping.unmap();
  closeSync(fd);
  for (const [count, bytes] of wanted.entries()) {
    const found = readFileSync(daemon.rawFile(vm, `s${count}`));
    t.ok(found.equals(bytes), `snapshot ${count} has what was mapped`);
  }
}

for (const transport of TRANSPORTS) {
  t.test(`over the ${transport} channel`, { skip: cannotServe() }, async (t) => {
    const daemon = await startDaemon(t, { transport });
    await t.test('buffered writes in order', (t) => checkWriter(t, daemon, 'buffered'));
    await t.test('direct writes in order', (t) => checkWriter(t, daemon, 'direct'));
    await t.test('fio', (t) => checkFio(t, daemon));
    await t.test('mappings', (t) => checkMapped(t, daemon, 'mapped', 0));
    await t.test('mappings of a file that is open for direct I/O alone', (t) =>
      checkMapped(t, daemon, 'direct', constants.O_DIRECT),
    );
  });
}
