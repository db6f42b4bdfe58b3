/**
 * File systems on attached disks after each kind of crash, judged by their own checkers, and a
 * database on them by its own: the daemon dies and another takes over, it dies for good, or the
 * power of the file system below the store is cut. Every row that was committed is there.
 */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { MiB } from '../../src/common/units.js';
import { prepareDaemon, type TestDaemon } from '../support/daemon.js';
import { judgeLedger, startLedger } from '../support/ledger.js';
import { loopDevice, mountOn, releaseBelow } from '../support/mount-guard.js';
import { createRandom, newSeed, type Random } from '../support/random.js';
import { cutPower, mountAnew } from '../support/remount.js';
import { type ProgramResult, runProgram, tool } from '../support/run-program.js';
import { ask, cannotTakeOver, eventually, successor } from '../support/takeover.js';
import { tempFolder } from '../support/temp-folder.js';
import { Tally, triesOr } from './tally.js';

const TRIES = triesOr(3);
const TIMEOUT_MS = 120_000 + TRIES * 60_000;
const LIFE_MS = 600;
const DISK = 320 * MiB;
/** The store's own file system; sparse. */
const HOST = 640 * MiB;
const STRESS_SECONDS = 2;
const VM = 'guest';

interface FileSystem {
  readonly make: readonly string[];
  /** Checks without changing; exits non-zero for any finding. */
  readonly check: readonly string[];
}

const FILE_SYSTEMS: Readonly<Record<string, FileSystem>> = {
  ext4: { make: ['mkfs.ext4', '-q', '-F'], check: ['e2fsck', '-fn'] },
  xfs: { make: ['mkfs.xfs', '-q', '-f'], check: ['xfs_repair', '-n'] },
  btrfs: { make: ['mkfs.btrfs', '-q', '-f'], check: ['btrfs', 'check', '--readonly'] },
};
const CRASHES = ['takeover', 'death', 'power cut'] as const;
type Crash = (typeof CRASHES)[number];

/** The store lies on a file system of its own, whose power can be cut. */
interface Host {
  readonly daemon: TestDaemon;
  readonly on: string;
  readonly device: string;
}

async function makeHost(t: Test, crash: Crash): Promise<Host> {
  const folder = tempFolder(t);
  const image = join(folder, 'image');
  const on = join(folder, 'host');
  await tool('truncate', ['-s', String(HOST), image]);
  await tool('mkfs.ext4', ['-q', '-F', image]);
  const device = await loopDevice(t, image);
  await mountOn(t, device, on);
  const store = join(on, 'store');
  const daemon = await prepareDaemon(t, { supervise: crash === 'takeover', store });
  await daemon.start();
  return { daemon, on, device };
}

/** Others' work, until the crash or, when that is to be survived, to a good end. */
class Guest {
  readonly #daemon: TestDaemon;
  readonly #on: string;

  constructor(daemon: TestDaemon) {
    this.#daemon = daemon;
    this.#on = join(daemon.folder, 'guest');
  }

  get ledger(): string {
    return join(this.#on, 'ledger');
  }

  async attach(): Promise<string> {
    return (await ask(this.#daemon, 'attach', { vm: VM })).device;
  }

  async mount(device: string): Promise<void> {
    await mkdir(this.#on, { recursive: true });
    await tool('mount', [device, this.#on]);
  }

  async unmount(): Promise<void> {
    await tool('umount', [this.#on]);
  }

  /** stress-ng writes and compares files of its own. */
  stress(seconds: number): Promise<ProgramResult> {
    const hdd = ['--hdd', '1', '--hdd-bytes', '8m', '--verify', '--temp-path', this.#on];
    return runProgram('stress-ng', [...hdd, '--timeout', `${seconds}s`, '--quiet']);
  }
}

async function crashOnce(t: Test, kind: string, crash: Crash, random: Random) {
  const { make, check } = FILE_SYSTEMS[kind] as FileSystem;
  const host = await makeHost(t, crash);
  const { daemon } = host;
  await ask(daemon, 'create', { vm: VM, disks: [{ size: DISK }] });
  const guest = new Guest(daemon);
  const device = await guest.attach();
  await tool(make[0] ?? '', [...make.slice(1), device]);
  await guest.mount(device);
  const acknowledged = await workAndCrash(guest, host, crash, random);
  if (typeof acknowledged === 'string') return acknowledged;
  t.comment(`${acknowledged} rows committed`);
  const again = crash === 'takeover' ? device : await guest.attach();
  // The journal is replayed by mounting, as after any crash.
  if (crash !== 'takeover') await guest.mount(again);
  const problem = await judgeLedger(guest.ledger, acknowledged);
  await guest.unmount();
  if (problem !== undefined) return problem;
  const fsck = await runProgram(check[0] ?? '', [...check.slice(1), again]);
  if (fsck.code !== 0) return `${check.join(' ')}: ${fsck.stdout}${fsck.stderr}`;
  await ask(daemon, 'detach', { device: again });
  const found = await ask(daemon, 'check', { deep: true });
  await daemon.clear();
  return found.findings.length > 0 ? JSON.stringify(found.findings) : undefined;
}

/** @returns the last row that was acknowledged, or what went wrong. */
async function workAndCrash(guest: Guest, host: Host, crash: Crash, random: Random) {
  const { daemon, on, device } = host;
  const ledger = await startLedger(guest.ledger);
  const stress = guest.stress(STRESS_SECONDS);
  await sleep(LIFE_MS / 2 + random.below(LIFE_MS));
  if (crash === 'takeover') {
    const pid = daemon.servingPid;
    process.kill(pid, 'SIGKILL');
    await eventually('the next daemon', () => successor(daemon, pid));
    const result = await stress;
    const { code, acknowledged, said } = await ledger.stop();
    if (result.code !== 0) return `stress-ng: ${result.stdout}${result.stderr}`;
    return code === 0 ? acknowledged : `sqlite3: ${said}`;
  }
  if (crash === 'power cut') await cutPower(on);
  await daemon.kill();
  const { acknowledged } = await ledger.kill();
  await stress;
  await releaseBelow(daemon.folder);
  if (crash === 'power cut') {
    await tool('umount', [on]);
    await mountAnew(device, on);
  }
  await daemon.start();
  return acknowledged;
}

t.test('crashes', { skip: cannotTakeOver(), timeout: TIMEOUT_MS }, async (t) => {
  const seed = newSeed();
  t.comment(`LAYERDISK_SEED=${seed}`);
  const random = createRandom(seed);
  const tally = new Tally(t);
  const kinds = Object.keys(FILE_SYSTEMS);
  const turn = random.below(kinds.length);
  for (let index = 0; index < TRIES; index += 1) {
    // Three in a row have each file system and each crash once; nine have every pair.
    const kind = kinds[index % kinds.length] as string;
    const shift = turn + Math.floor(index / kinds.length);
    const crash = CRASHES[(index + shift) % CRASHES.length] as Crash;
    await t.test(`${kind}, ${crash}`, async (t) => {
      tally.judge(`${kind}, ${crash}`, await crashOnce(t, kind, crash, random));
    });
  }
  tally.print();
});
