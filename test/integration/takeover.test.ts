/**
 * The daemon is killed again and again, and nobody above notices: programs on the raw files, loop
 * devices and a mounted file system go on without an error, every byte is as it was written, and
 * snapshots and restores are wholly there or not at all.
 */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { DiskError } from '../../src/common/errors.js';
import { MiB } from '../../src/common/units.js';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import { loopDevicesBelow, mountsBelow } from '../support/mount-guard.js';
import { checkPrefix, readNumbers, startWriter } from '../support/numbered-writer.js';
import { Ordeal } from '../support/ordeal.js';
import { newSeed } from '../support/random.js';
import { runProgram, tool } from '../support/run-program.js';
import { stampedPattern } from '../support/stamped-pattern.js';
import { ask, askOnce, cannotTakeOver, killAgainAndAgain } from '../support/takeover.js';
import { triesOr } from '../torture/tally.js';

const KILLS = triesOr(process.env.LAYERDISK_LONG === '1' ? 1000 : 20);
const PAUSE_MS = 400;
/** A request that nobody answers hangs for ever: that is a failure, too. */
const TIMEOUT_MS = 340_000 + KILLS * 3000;
const MOST_SNAPSHOTS = 20;
/** Of the VMs that are restored and exercised. */
const DISK = 4 * MiB;

/** A round of fio. */
const FIO_SECONDS = Math.min(20, Math.ceil((KILLS * PAUSE_MS * 1.2) / 1000));

/** @returns how long after each kill the next daemon served, ms. */
async function kill(ordeal: Ordeal): Promise<readonly number[]> {
  const counted = (): void => ordeal.tally.tried();
  const kills = { count: KILLS, pauseMs: PAUSE_MS, random: ordeal.random(), counted };
  return await killAgainAndAgain(ordeal.daemon, kills, ordeal.isOver).finally(() => ordeal.end());
}

/** Snapshots of the disks that the writer writes to: those that exist hold a state that was. */
async function takeSnapshots(daemon: TestDaemon, vm: string, isOver: () => boolean) {
  const taken: string[] = [];
  for (let count = 0; !isOver(); count += 1) {
    const snapshot = `s${count}`;
    const answer = await askOnce(daemon, 'snapshot.take', { vm, snapshot });
    if (answer !== undefined) taken.push(snapshot);
    // Those that a kill cut short may be there, too: none may stay, or the chain gets ever longer.
    if (count >= MOST_SNAPSHOTS) {
      const oldest = `s${count - MOST_SNAPSHOTS}`;
      if (taken[0] === oldest) taken.shift();
      await deleteSurely(daemon, vm, oldest);
    }
    await sleep(PAUSE_MS / 10);
  }
  return taken;
}

/** A try that a kill cut short may have deleted it already; or it was never taken. */
async function deleteSurely(daemon: TestDaemon, vm: string, snapshot: string): Promise<void> {
  try {
    await ask(daemon, 'snapshot.delete', { vm, snapshot });
  } catch (error) {
    if (!(error instanceof DiskError) || error.code !== 'not-found') throw error;
  }
}

/** A try that a kill cut short may have taken it already. */
async function takeSurely(daemon: TestDaemon, vm: string, snapshot: string): Promise<void> {
  try {
    await ask(daemon, 'snapshot.take', { vm, snapshot });
  } catch (error) {
    if (!(error instanceof DiskError) || error.code !== 'exists') throw error;
  }
}

/** Restores one of two snapshots; the disk is the one that was asked for, or as it was before. */
async function checkRestores(t: Test, daemon: TestDaemon, isOver: () => boolean): Promise<void> {
  const file = daemon.rawFile('back');
  const contents = new Map<string, Buffer>();
  for (const [index, snapshot] of ['one', 'two'].entries()) {
    const bytes = stampedPattern(index + 1, 0, DISK);
    await writeFile(file, bytes, { flag: 'r+' });
    await takeSurely(daemon, 'back', snapshot);
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

async function checkMounted(ordeal: Ordeal, work: () => Promise<void>) {
  const { t, daemon } = ordeal;
  const directory = join(daemon.folder, 'guest');
  await mkdir(directory);
  await daemon.ok('create', 'guest', '--disk', '64M');
  const device = await daemon.ok('attach', 'guest');
  await tool('mkfs.ext4', ['-q', '-F', device]);
  await daemon.ok('mount', 'guest', directory);
  const file = join(directory, 'file');
  await tool('truncate', ['-s', '16M', file]);
  const fio = ordeal.runFio('ext4', file, ['--ioengine=psync', '--fsync=32']);
  await Promise.all([work(), fio]);
  t.equal(await ask(daemon, 'unmount', { directory }).then(() => 'unmounted'), 'unmounted');
  const fsck = await runProgram('fsck.ext4', ['-f', '-n', device]);
  t.equal(fsck.code, 0, `the file system is clean: ${fsck.stdout}${fsck.stderr}`);
  await daemon.ok('detach', device);
}

async function checkUnderKills(ordeal: Ordeal) {
  const { t, daemon, isOver } = ordeal;
  await daemon.ok('create', 'numbers', '--disk', 'a=4M', '--disk', 'b=4M');
  await daemon.ok('create', 'back', '--disk', '4M');
  await daemon.ok('create', 'random', '--disk', '4M');
  await daemon.ok('create', 'loop', '--disk', '32M');
  const device = await daemon.ok('attach', 'loop', '--direct-io');
  const heads = ['a', 'b'].map((disk) => daemon.rawFile('numbers', undefined, disk));
  const writer = await startWriter(t, 'direct', heads);
  const [snapshots, , , , takeovers] = await Promise.all([
    takeSnapshots(daemon, 'numbers', isOver),
    checkRestores(t, daemon, isOver),
    ordeal.runExerciser('random', DISK),
    ordeal.runFio('loop', device, [
      ...['--direct=1', '--ioengine=libaio', '--iodepth=8', '--numjobs=2'],
      '--offset_increment=16m',
    ]),
    kill(ordeal),
  ]);
  const { last, slowest } = await writer.stop();
  ordeal.noteSlowest('the writer', slowest);
  t.comment(`${last} numbered writes, ${slowest}`);
  t.equal(checkPrefix(t, await readNumbers(t, heads), 'the disk'), last, 'nothing is lost');
  await checkSnapshots(t, daemon, snapshots);
  await daemon.ok('detach', device);
  return [...takeovers].sort((a, b) => a - b);
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
  const seed = newSeed();
  t.comment(`LAYERDISK_SEED=${seed}`);
  const daemon = await startDaemon(t, { supervise: true });
  const ordeal = new Ordeal(t, daemon, { seed, fioSeconds: FIO_SECONDS });
  const supervisor = daemon.pid;
  let takeovers: readonly number[] = [];
  await checkMounted(ordeal, async () => {
    takeovers = await checkUnderKills(ordeal);
  });
  t.equal((await ask(daemon, 'daemon.status', {})).supervisorPid, supervisor);
  t.same(await daemon.ok('daemon', 'stop').then(() => daemon.ended()), 0);
  t.same(mountsBelow(daemon.folder), [], 'nothing stays mounted');
  t.same(await loopDevicesBelow(daemon.folder), [], 'nor attached');
  const left = await runProgram('pgrep', ['-f', daemon.store]);
  t.equal(left.stdout, '', 'and no process stays');
  ordeal.tally.print({
    'median takeover, ms': Math.round(takeovers[takeovers.length >> 1] ?? 0),
    longest: Math.round(takeovers.at(-1) ?? 0),
    ...ordeal.longestRequest,
  });
});
