/**
 * Everything at once for as long as it is told to: fio on loop devices verifies what it wrote, a
 * writer numbers sectors of two disks, VMs of which every byte is known are written to, restored,
 * cloned, exported and deleted; a snapshot is taken every second, old ones are deleted and their
 * deltas merged; the daemon is killed and restarted. At the end every byte is as the models say,
 * and memory, descriptors, files and space are back to where they were.
 *
 * LAYERDISK_TRIES=n: n seconds, and so many snapshots.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import { type Footprint, footprintOf, residentBytes } from '../support/footprint.js';
import { MODELLED_SIZE, ModelledVms } from '../support/modelled-vms.js';
import { loopDevicesBelow, mountsBelow } from '../support/mount-guard.js';
import { checkPrefix, readNumbers, startWriter } from '../support/numbered-writer.js';
import { Ordeal } from '../support/ordeal.js';
import { newSeed, type Random } from '../support/random.js';
import { runProgram, tool } from '../support/run-program.js';
import { stampedPattern } from '../support/stamped-pattern.js';
import { ask, askOnce, cannotTakeOver, eventually, successor } from '../support/takeover.js';
import { triesOr } from './tally.js';

const SECONDS = triesOr(process.env.LAYERDISK_LONG === '1' ? 120 : 8);
const IS_LONG = SECONDS >= 60;
/** The daemon dies in the first half; in the other one its memory is watched. */
const CALM_MS = (SECONDS * 1000) / 2;
const DISTURBED_MS = CALM_MS;
const PAUSE_MS = Math.min(2000, SECONDS * 100);
const SNAPSHOT_MS = 1000;
const TIMEOUT_MS = 340_000 + SECONDS * 3000;
/** Of fio, each with its own loop device and as many jobs. */
const LOOPS = IS_LONG ? 4 : 2;
const JOBS = IS_LONG ? 4 : 2;
const JOB_MIB = 16;
const WORLDS = IS_LONG ? 3 : 1;
const DISKS = ['a', 'b'];
const MOST_SNAPSHOTS = 12;
const SETTLE_TRIES = 40;
const SETTLE_MS = 250;
/** A VM that nobody writes to; its delta is two files. */
const IDLE = 'idle';
const FILES_OF_IDLE = 2;
/** Growth of memory from the first half of the calm to the second that is no leak. */
const MOST_GROWTH = 1.1;
/** V8 collects what has come to be old for the first time after two minutes of such work. */
const WARM_UP_SECONDS = 120;
/** From which on growth of memory says something. */
const LONG_CALM_MS = 300_000;

/** Of each snapshot that goes, what it held is looked at first. */
class Snapshotter {
  readonly #t: Test;
  readonly #daemon: TestDaemon;
  readonly #vms: readonly string[];
  readonly #kept = new Map<string, string[]>();
  #taken = 0;
  #deleted = 0;

  constructor(t: Test, daemon: TestDaemon, vms: readonly string[]) {
    this.#t = t;
    this.#daemon = daemon;
    this.#vms = vms;
    for (const vm of vms) this.#kept.set(vm, []);
  }

  get deleted(): number {
    return this.#deleted;
  }

  async run(ordeal: Ordeal): Promise<void> {
    const random = ordeal.random();
    for (let due = performance.now(); !ordeal.isOver(); due += SNAPSHOT_MS) {
      await sleep(Math.max(0, due - performance.now()));
      await this.#take(random);
      ordeal.tally.tried();
    }
  }

  async #take(random: Random): Promise<void> {
    const vm = this.#vms[this.#taken % this.#vms.length] as string;
    this.#taken += 1;
    const snapshot = `s${this.#taken}`;
    const kept = this.#kept.get(vm) ?? [];
    const answer = await askOnce(this.#daemon, 'snapshot.take', { vm, snapshot });
    const list = answer ?? (await ask(this.#daemon, 'snapshot.list', { vm }));
    const isThere = !Array.isArray(list) || list.some(({ name }) => name === snapshot);
    if (isThere) kept.push(snapshot);
    if (kept.length <= MOST_SNAPSHOTS) return;
    // Mostly the oldest, so that rows of deltas come to be merged.
    const [oldest] = kept.splice(random.below(4) === 0 ? random.below(kept.length) : 0, 1);
    if (oldest !== undefined) await this.#delete(vm, oldest);
  }

  async #delete(vm: string, snapshot: string): Promise<void> {
    if (vm === 'numbers') await checkNumbers(this.#t, this.#daemon, snapshot);
    const answer = await askOnce(this.#daemon, 'snapshot.delete', { vm, snapshot });
    const list = answer ?? (await ask(this.#daemon, 'snapshot.list', { vm }));
    if (Array.isArray(list) && list.some(({ name }) => name === snapshot)) {
      await ask(this.#daemon, 'snapshot.delete', { vm, snapshot });
    }
    this.#deleted += 1;
  }

  /** Those that are left, oldest first. */
  async checkAll(): Promise<void> {
    for (const [vm, kept] of this.#kept) {
      const names = (await ask(this.#daemon, 'snapshot.list', { vm })).map(({ name }) => name);
      this.#t.same(names, kept, `the snapshots of ${vm} are those that were acknowledged`);
    }
    for (const name of this.#kept.get('numbers') ?? []) {
      await checkNumbers(this.#t, this.#daemon, name);
    }
  }
}

async function checkNumbers(t: Test, daemon: TestDaemon, snapshot?: string): Promise<number> {
  const files = DISKS.map((disk) => daemon.rawFile('numbers', snapshot, disk));
  return checkPrefix(t, await readNumbers(t, files), snapshot ?? 'the disk');
}

/** @returns how often the daemon was killed and restarted. */
async function disturb({ daemon }: Ordeal, random: Random) {
  const end = performance.now() + DISTURBED_MS;
  const counts = { kills: 0, restarts: 0 };
  for (;;) {
    await sleep(1 + random.below(2 * PAUSE_MS));
    if (performance.now() > end) return counts;
    const pid = await eventually('a daemon', () => successor(daemon, 0));
    if (random.below(4) === 0) {
      await ask(daemon, 'daemon.restart', {});
      counts.restarts += 1;
    } else {
      process.kill(pid, 'SIGKILL');
      counts.kills += 1;
    }
    await eventually('the next daemon', () => successor(daemon, pid));
  }
}

/** @returns resident bytes of the daemon in each second. */
async function watchMemory({ daemon }: Ordeal): Promise<number[]> {
  const end = performance.now() + CALM_MS;
  const samples: number[] = [];
  while (performance.now() < end) {
    samples.push(residentBytes(daemon.servingPid));
    await sleep(Math.min(1000, CALM_MS / 4));
  }
  return samples;
}

async function runWorld(ordeal: Ordeal, world: ModelledVms): Promise<void> {
  try {
    while (!ordeal.isOver()) await world.step();
  } catch (error) {
    ordeal.tally.lost(`seed ${ordeal.seed}: ${(error as Error).message}`);
  }
}

async function makeWorld(ordeal: Ordeal, index: number): Promise<ModelledVms> {
  const { daemon } = ordeal;
  const world = new ModelledVms(daemon, `world${index}-`, ordeal.random());
  const image = join(daemon.folder, `world${index}.base`);
  await writeFile(image, stampedPattern(0, 0, MODELLED_SIZE));
  await world.begin(image);
  return world;
}

/** fio on a loop device: what it reads back is what it wrote, or, once trimmed, wrote anew. */
function runFio(ordeal: Ordeal, index: number, device: string): Promise<void> {
  const shared = ['--direct=1', `--numjobs=${JOBS}`, `--offset_increment=${JOB_MIB}m`];
  const kinds = [
    ['--ioengine=libaio', '--iodepth=4'],
    ['--ioengine=libaio', '--iodepth=4', '--rw=randtrimwrite', '--bs=16k'],
    ['--ioengine=io_uring', '--iodepth=4', '--fsync=16'],
    ['--ioengine=psync', '--fdatasync=8'],
  ];
  return ordeal.runFio(`loop${index}`, device, [...shared, ...(kinds[index % 4] ?? [])]);
}

/** One kill and one VM's life, so that what comes once and stays has come. */
async function warmUp(daemon: TestDaemon): Promise<Footprint> {
  const disks = [{ size: MODELLED_SIZE }];
  await ask(daemon, 'create', { vm: IDLE, disks });
  await ask(daemon, 'create', { vm: 'warm', disks });
  await ask(daemon, 'snapshot.take', { vm: 'warm', snapshot: 'one' });
  await writeFile(daemon.rawFile('warm'), stampedPattern(1, 0, 65_536), { flag: 'r+' });
  const { device } = await ask(daemon, 'attach', { vm: 'warm' });
  const pid = daemon.servingPid;
  process.kill(pid, 'SIGKILL');
  await eventually('the next daemon', () => successor(daemon, pid));
  await ask(daemon, 'detach', { device });
  await ask(daemon, 'clone', { vm: 'warm', snapshot: 'one', name: 'cold', mode: 'full' });
  for (const vm of ['warm', 'cold']) await ask(daemon, 'delete', { vm });
  return await settled(daemon);
}

/** The footprint once `wanted` is reached, or only the idle VM is left and nothing changes. */
async function settled(daemon: TestDaemon, wanted?: Footprint): Promise<Footprint> {
  const due = JSON.stringify(wanted);
  let before = '';
  for (let attempt = 0; ; attempt += 1) {
    await ask(daemon, 'gc', {});
    // The threads that serve requests tidy up when they get one.
    const read = [`if=${daemon.rawFile(IDLE)}`, 'of=/dev/null', 'bs=4k', 'iflag=direct'];
    await tool('dd', ['status=none', ...read]);
    await sleep(SETTLE_MS);
    const footprint = footprintOf(daemon);
    const text = JSON.stringify(footprint);
    const deltas = footprint.files.filter((file) => file.startsWith('deltas/'));
    const isAtRest = text === before && deltas.length === FILES_OF_IDLE;
    if (wanted === undefined ? isAtRest : text === due) return footprint;
    if (attempt === SETTLE_TRIES) return footprint;
    before = text;
  }
}

async function soak(ordeal: Ordeal) {
  const { t, daemon } = ordeal;
  const loops = Array.from({ length: LOOPS }, (_, index) => `loop${index}`);
  const devices: string[] = [];
  for (const vm of loops) {
    await ask(daemon, 'create', { vm, disks: [{ size: JOBS * JOB_MIB * 1024 ** 2 }] });
    devices.push((await ask(daemon, 'attach', { vm, directIo: true })).device);
  }
  await daemon.ok('create', 'numbers', ...DISKS.flatMap((disk) => ['--disk', `${disk}=4M`]));
  const worlds: ModelledVms[] = [];
  for (let index = 0; index < WORLDS; index += 1) worlds.push(await makeWorld(ordeal, index));
  const heads = DISKS.map((disk) => daemon.rawFile('numbers', undefined, disk));
  const writer = await startWriter(t, 'direct', heads);
  const snapshotter = new Snapshotter(t, daemon, ['numbers', ...loops]);
  const random = ordeal.random();
  const disturbance = async () => {
    const counts = await disturb(ordeal, random);
    const memory = await watchMemory(ordeal);
    ordeal.end();
    return { ...counts, memory };
  };
  // The writer ends first: others wait for collections, which it holds up by never pausing.
  const [disturbed, { last, slowest }] = await Promise.all([
    disturbance().finally(() => ordeal.end()),
    ordeal.whenOver.then(() => writer.stop()),
    snapshotter.run(ordeal),
    ...devices.map((device, index) => runFio(ordeal, index, device)),
    ...worlds.map((world) => runWorld(ordeal, world)),
  ]);
  ordeal.noteSlowest('the writer', slowest);
  t.equal(await checkNumbers(t, daemon), last, 'no numbered write is lost');
  await snapshotter.checkAll();
  for (const device of devices) await ask(daemon, 'detach', { device });
  return { ...disturbed, worlds, snapshotter, writes: last, vms: ['numbers', ...loops] };
}

async function checkWorlds(ordeal: Ordeal, worlds: readonly ModelledVms[]): Promise<void> {
  for (const world of worlds) {
    await world.compareAll().catch((error: Error) => ordeal.tally.lost(error.message));
    ordeal.t.comment(`${world.steps} steps: ${JSON.stringify(Object.fromEntries(world.counts))}`);
  }
}

function median(numbers: readonly number[]): number {
  return [...numbers].sort((a, b) => a - b)[numbers.length >> 1] ?? 0;
}

/**
 * @returns how much more memory the second half of the calm took than the first, at the least: V8's
 * heaps go up for a minute or two, and down again with a collection.
 */
function growthOf(samples: readonly number[]): number {
  const warm = samples.slice(CALM_MS >= LONG_CALM_MS ? WARM_UP_SECONDS : 0);
  const half = warm.length >> 1;
  return Math.min(...warm.slice(half)) / Math.min(...warm.slice(0, half));
}

t.test('a soak', { skip: cannotTakeOver(), timeout: TIMEOUT_MS }, async (t) => {
  const seed = newSeed();
  t.comment(`LAYERDISK_SEED=${seed}`);
  const daemon = await startDaemon(t, { supervise: true });
  const fioSeconds = Math.min(20, Math.ceil(SECONDS / 2));
  const ordeal = new Ordeal(t, daemon, { seed, fioSeconds });
  const before = await warmUp(daemon);
  const { worlds, snapshotter, memory, vms, ...counts } = await soak(ordeal);
  await checkWorlds(ordeal, worlds);
  const check = await ask(daemon, 'check', { deep: true });
  t.same(check.findings, [], 'the store is whole');
  const growth = growthOf(memory);
  const each = memory.filter((_, second) => second % 5 === 0);
  t.comment(`MiB every 5 s: ${each.map((bytes) => Math.round(bytes / 1024 ** 2)).join(' ')}`);
  // Each half is to have such a collection in it.
  if (CALM_MS >= LONG_CALM_MS)
    t.ok(growth < MOST_GROWTH, `memory grew to ${growth.toFixed(2)} times`);
  for (const vm of vms) await ask(daemon, 'delete', { vm });
  for (const world of worlds) await world.removeAll();
  const after = await settled(daemon, before);
  t.same(after, before, 'descriptors, files and space are back to where they were');
  t.match(await ask(daemon, 'stats', {}), { openDisks: 1 }, 'that of the idle VM');
  t.equal(await daemon.ok('daemon', 'stop').then(() => daemon.ended()), 0);
  t.same(mountsBelow(daemon.folder), [], 'nothing stays mounted');
  t.same(await loopDevicesBelow(daemon.folder), [], 'nor attached');
  const left = await runProgram('pgrep', ['-f', daemon.store]);
  t.equal(left.stdout, '', 'and no process stays');
  ordeal.tally.print({
    ...{ kills: counts.kills, restarts: counts.restarts, writes: counts.writes },
    'snapshots deleted': snapshotter.deleted,
    steps: worlds.reduce((sum, { steps }) => sum + steps, 0),
    'memory, MiB': Math.round(median(memory) / 1024 ** 2),
    'grown by, %': Math.round((growth - 1) * 100),
    ...ordeal.longestRequest,
  });
});
