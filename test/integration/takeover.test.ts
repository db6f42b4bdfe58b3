/**
 * The daemon is killed again and again, and nobody above notices: programs on the raw files, loop
 * devices and a mounted file system go on without an error, every byte is as it was written, and
 * snapshots and restores are wholly there or not at all.
 */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { MiB } from '../../src/common/units.js';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import { loopDevicesBelow, mountsBelow } from '../support/mount-guard.js';
import { checkPrefix, readNumbers, startWriter } from '../support/numbered-writer.js';
import { runProgram, tool } from '../support/run-program.js';
import { stampedPattern } from '../support/stamped-pattern.js';
import { ask, askOnce, cannotTakeOver, killAgainAndAgain } from '../support/takeover.js';

const LONG = process.env.LAYERDISK_LONG === '1';
const KILLS = LONG ? 1000 : 20;
const PAUSE_MS = 500;
/** A request that nobody answers hangs for ever: that is a failure, too. */
const TIMEOUT_MS = LONG ? 7_200_000 : 400_000;
const MOST_SNAPSHOTS = 20;
/** Of the VM that is restored. */
const DISK = 4 * MiB;

/** fio writes and verifies until it is stopped by its runtime. */
function runFio(t: Test, folder: string, name: string, file: string, options: readonly string[]) {
  const args = [
    ...[`--name=${name}`, `--filename=${file}`, '--rw=randwrite', '--bsrange=512-64k'],
    ...['--blockalign=512', '--verify=crc32c', '--verify_fatal=1', '--verify_backlog=64'],
    ...['--verify_state_save=0', '--fallocate=none', '--overwrite=1', '--randrepeat=0'],
    ...['--output-format=terse', '--loops=1000000', '--size=16m', ...options],
  ];
  const seconds = Math.ceil((KILLS * PAUSE_MS * 1.2) / 1000);
  const timed = [...args, '--time_based', `--runtime=${seconds}`];
  return async (): Promise<void> => {
    const result = await runProgram('fio', timed, { cwd: folder, timeoutMs: 3_600_000 });
    t.equal(result.code, 0, `fio (${name}) saw no error: ${result.stdout}${result.stderr}`);
  };
}

/** Snapshots of the disks that the writer writes to: those that exist hold a state that was. */
async function takeSnapshots(daemon: TestDaemon, vm: string, isOver: () => boolean) {
  const taken: string[] = [];
  for (let count = 0; !isOver(); count += 1) {
    const snapshot = `s${count}`;
    const answer = await askOnce(daemon, 'snapshot.take', { vm, snapshot });
    if (answer !== undefined) taken.push(snapshot);
    const oldest = taken.length > MOST_SNAPSHOTS ? taken.shift() : undefined;
    if (oldest !== undefined) await askOnce(daemon, 'snapshot.delete', { vm, snapshot: oldest });
    await sleep(PAUSE_MS / 10);
  }
  return taken;
}

/** Restores one of two snapshots; the disk is the one that was asked for, or as it was before. */
async function checkRestores(t: Test, daemon: TestDaemon, isOver: () => boolean): Promise<void> {
  const file = daemon.rawFile('back');
  const contents = new Map<string, Buffer>();
  for (const [index, snapshot] of ['one', 'two'].entries()) {
    const bytes = stampedPattern(index + 1, 0, DISK);
    await writeFile(file, bytes, { flag: 'r+' });
    await ask(daemon, 'snapshot.take', { vm: 'back', snapshot });
    contents.set(snapshot, bytes);
  }
  let before = 'two';
  let done = 0;
  let lost = 0;
  for (let round = 0; !isOver(); round += 1) {
    const snapshot = round % 2 === 0 ? 'one' : 'two';
    const answer = await askOnce(daemon, 'snapshot.restore', {
      vm: 'back',
      snapshot,
      discard: true,
    });
    await ask(daemon, 'info', { vm: 'back' });
    const bytes = await readFile(file);
    const is = [...contents].find(([, content]) => content.equals(bytes))?.[0];
    if (answer === undefined ? is === undefined : is !== snapshot) {
      t.fail(`after a restore of ${snapshot} from ${before}, the disk is ${is ?? 'neither'}`);
      return;
    }
    before = is ?? snapshot;
    if (answer === undefined) lost += 1;
    else done += 1;
  }
  t.comment(`${done} restores answered, ${lost} cut short`);
}

async function checkMounted(t: Test, daemon: TestDaemon, work: () => Promise<void>) {
  const directory = join(daemon.folder, 'guest');
  await mkdir(directory);
  await daemon.ok('create', 'guest', '--disk', '64M');
  const device = await daemon.ok('attach', 'guest');
  await tool('mkfs.ext4', ['-q', '-F', device]);
  await daemon.ok('mount', 'guest', directory);
  const file = join(directory, 'file');
  await tool('truncate', ['-s', '16M', file]);
  const fio = runFio(t, daemon.folder, 'ext4', file, ['--ioengine=psync', '--fsync=32']);
  await Promise.all([work(), fio()]);
  t.equal(await ask(daemon, 'unmount', { directory }).then(() => 'unmounted'), 'unmounted');
  const fsck = await runProgram('fsck.ext4', ['-f', '-n', device]);
  t.equal(fsck.code, 0, `the file system is clean: ${fsck.stdout}${fsck.stderr}`);
  await daemon.ok('detach', device);
}

async function checkUnderKills(t: Test, daemon: TestDaemon) {
  await daemon.ok('create', 'numbers', '--disk', 'a=4M', '--disk', 'b=4M');
  await daemon.ok('create', 'back', '--disk', '4M');
  await daemon.ok('create', 'loop', '--disk', '32M');
  const device = await daemon.ok('attach', 'loop', '--direct-io');
  const heads = ['a', 'b'].map((disk) => daemon.rawFile('numbers', undefined, disk));
  const writer = await startWriter(t, 'direct', heads);
  let over = false;
  const kills = killAgainAndAgain(daemon, KILLS, PAUSE_MS).finally(() => {
    over = true;
  });
  const [snapshots] = await Promise.all([
    takeSnapshots(daemon, 'numbers', () => over),
    checkRestores(t, daemon, () => over),
    runFio(t, daemon.folder, 'loop', device, [
      ...['--direct=1', '--ioengine=libaio', '--iodepth=8', '--numjobs=2'],
      '--offset_increment=16m',
    ])(),
    kills,
  ]);
  const { last, slowest } = await writer.stop();
  t.comment(`${KILLS} kills, ${last} numbered writes, ${slowest}`);
  t.equal(checkPrefix(t, await readNumbers(t, heads), 'the disk'), last, 'nothing is lost');
  await checkSnapshots(t, daemon, snapshots);
  await daemon.ok('detach', device);
}

async function checkSnapshots(t: Test, daemon: TestDaemon, taken: readonly string[]) {
  const list = await ask(daemon, 'snapshot.list', { vm: 'numbers' });
  const names = list.map(({ name }) => name);
  t.same(
    taken.filter((name) => !names.includes(name)),
    [],
    'every snapshot that was acknowledged is there',
  );
  let before = 0;
  for (const name of names) {
    const files = ['a', 'b'].map((disk) => daemon.rawFile('numbers', name, disk));
    const last = checkPrefix(t, await readNumbers(t, files), name);
    t.ok(last >= before, 'snapshots are in order');
    before = last;
  }
  t.comment(`${taken.length} snapshots answered, ${names.length} there`);
}

t.test('killed under load', { skip: cannotTakeOver(), timeout: TIMEOUT_MS }, async (t) => {
  const daemon = await startDaemon(t, { supervise: true });
  const supervisor = daemon.pid;
  await checkMounted(t, daemon, () => checkUnderKills(t, daemon));
  t.equal((await ask(daemon, 'daemon.status', {})).supervisorPid, supervisor);
  t.same(await daemon.ok('daemon', 'stop').then(() => daemon.ended()), 0);
  t.same(mountsBelow(daemon.folder), [], 'nothing stays mounted');
  t.same(await loopDevicesBelow(daemon.folder), [], 'nor attached');
  const left = await runProgram('pgrep', ['-f', daemon.store]);
  t.equal(left.stdout, '', 'and no process stays');
});
