/**
 * fio writes through each of its engines and verifies every block: on a disk of one layer
 * and on a chain of ten, on the file and through a loop device, there with trims.
 *
 * LAYERDISK_TRIES=n: n MiB for each job.
 */
import t, { type Test } from 'tap';
import { MiB } from '../../src/common/units.js';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import { cannotServe } from '../support/mount-guard.js';
import { createRandom, newSeed, type Random } from '../support/random.js';
import { runProgram, tool } from '../support/run-program.js';
import { ask } from '../support/takeover.js';
import { Tally, triesOr } from './tally.js';

const JOB_MIB = triesOr(2);
const TIMEOUT_MS = 240_000 + JOB_MIB * 20_000;
const LAYERS = [1, 10];

const MAPPED = ['--ioengine=mmap', '--bsrange=4k-64k', '--blockalign=4k'];
const ON_FILES: Readonly<Record<string, readonly string[]>> = {
  libaio: ['--ioengine=libaio', '--direct=1', '--iodepth=16'],
  io_uring: ['--ioengine=io_uring', '--direct=1', '--iodepth=16'],
  // fio maps whole pages.
  mmap: [...MAPPED, '--direct=0', '--fsync=64'],
  psync: ['--ioengine=psync', '--direct=0', '--fdatasync=16'],
};
const { mmap: _, ...others } = ON_FILES;
/**
 * fio 3.33 finds errors on any block device that it maps, a loop device on a plain file among them;
 * and it trims block devices only: first the block, then what is verified is written there.
 */
const ON_DEVICES: typeof ON_FILES = {
  ...others,
  trims: ['--ioengine=libaio', '--direct=1', '--iodepth=8', '--rw=randtrimwrite', '--bs=16k'],
};
const JOBS = Object.keys(ON_FILES).length;

const COMMON = [
  ...['--rw=randwrite', '--bsrange=512-64k', '--blockalign=512', `--size=${JOB_MIB}m`],
  ...['--verify=crc32c', '--verify_fatal=1', '--do_verify=1', '--end_fsync=1'],
  ...['--fallocate=none', '--overwrite=1', '--allow_file_create=0', '--thread'],
];

/**
 * One after the other, each on its own part of the disk: fio cannot verify buffered and direct
 * writes to one file at once, on no file system.
 */
function argumentsFor(path: string, engines: typeof ON_FILES, random: Random): string[] {
  return Object.entries(engines).flatMap(([name, options], index) => [
    ...[`--name=${name}`, `--filename=${path}`, `--offset=${index * JOB_MIB}m`, '--stonewall'],
    ...[...COMMON, ...options, `--randseed=${1 + random.below(2 ** 31)}`],
  ]);
}

/** A disk with so many layers, each with something in it. */
async function makeDisk(daemon: TestDaemon, layers: number): Promise<string> {
  const vm = `layers${layers}`;
  await ask(daemon, 'create', { vm, disks: [{ size: JOBS * JOB_MIB * MiB }] });
  const path = daemon.rawFile(vm);
  for (let layer = 1; layer < layers; layer += 1) {
    const seek = `seek=${layer * 8}`;
    const how = ['if=/dev/urandom', 'bs=16k', 'count=16', 'conv=notrunc', 'status=none'];
    await tool('dd', [`of=${path}`, seek, ...how]);
    await ask(daemon, 'snapshot.take', { vm, snapshot: `s${layer}` });
  }
  return vm;
}

async function verify(t: Test, daemon: TestDaemon, layers: number, random: Random) {
  const tally = new Tally(t);
  const vm = await makeDisk(daemon, layers);
  const place = { cwd: daemon.folder, timeoutMs: TIMEOUT_MS };
  const onFile = await runProgram('fio', argumentsFor(daemon.rawFile(vm), ON_FILES, random), place);
  tally.tried(JOBS);
  if (onFile.code !== 0) tally.lost(`on the file: ${onFile.stderr}${onFile.stdout}`);
  const { device } = await ask(daemon, 'attach', { vm, directIo: true });
  const onLoop = await runProgram('fio', argumentsFor(device, ON_DEVICES, random), place);
  tally.tried(JOBS);
  if (onLoop.code !== 0) tally.lost(`on a loop device: ${onLoop.stderr}${onLoop.stdout}`);
  await ask(daemon, 'detach', { device });
  await ask(daemon, 'snapshot.take', { vm, snapshot: 'last' });
  const same = await runProgram('cmp', [daemon.rawFile(vm), daemon.rawFile(vm, 'last')]);
  if (same.code !== 0) tally.lost(`the snapshot is another: ${same.stdout}${same.stderr}`);
  await ask(daemon, 'delete', { vm });
  tally.print({ layers });
}

t.test('every engine', { skip: cannotServe(), timeout: TIMEOUT_MS }, async (t) => {
  const seed = newSeed();
  t.comment(`LAYERDISK_SEED=${seed}`);
  const random = createRandom(seed);
  const daemon = await startDaemon(t);
  for (const layers of LAYERS) {
    await t.test(`${layers} layers`, (t) => verify(t, daemon, layers, random));
  }
});
