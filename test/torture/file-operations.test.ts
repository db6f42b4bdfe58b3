/**
 * Random operations as fsx does them, each compared with a model: mixed sizes, mappings, direct and
 * cached, holes, zeroed ranges, copies, reopening. On a disk of one layer, on one that gets ten
 * more meanwhile, on one whose layers come and go, and through loop devices.
 *
 * LAYERDISK_TRIES=n: n operations, on all disks together.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { MiB } from '../../src/common/units.js';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import { cannotServe } from '../support/mount-guard.js';
import { newSeed } from '../support/random.js';
import { runProgram } from '../support/run-program.js';
import { ask } from '../support/takeover.js';
import { Tally, triesOr } from './tally.js';

const EXERCISER = fileURLToPath(new URL('../support/random-exerciser.mjs', import.meta.url));
const DISK = 8 * MiB;
const LAYERS = 10;
const SNAPSHOT_MS = 100;

interface Variant {
  readonly name: string;
  readonly layers: number;
  /** Of its snapshots all but the last one go again. */
  readonly passing?: boolean;
  /** A loop device in between, past its page cache or not. */
  readonly loop?: { readonly directIo: boolean };
}

const VARIANTS: readonly Variant[] = [
  { name: 'one layer', layers: 1 },
  { name: 'ten layers', layers: LAYERS },
  { name: 'layers that go again', layers: 4 * LAYERS, passing: true },
  { name: 'a loop device', layers: LAYERS, loop: { directIo: false } },
  { name: 'a direct loop device', layers: 1, loop: { directIo: true } },
];
const OPERATIONS = Math.ceil(triesOr(8000) / VARIANTS.length);
const TIMEOUT_MS = 120_000 + OPERATIONS * 5;

async function exercise(t: Test, daemon: TestDaemon, variant: Variant, seed: number) {
  const tally = new Tally(t);
  const vm = variant.name.replaceAll(' ', '-');
  await ask(daemon, 'create', { vm, disks: [{ size: DISK }] });
  const device =
    variant.loop === undefined
      ? undefined
      : (await ask(daemon, 'attach', { vm, ...variant.loop })).device;
  const args = [EXERCISER, device ?? daemon.rawFile(vm), DISK, seed, OPERATIONS].map(String);
  let isOver = false;
  const work = runProgram('node', args, { timeoutMs: TIMEOUT_MS }).finally(() => {
    isOver = true;
  });
  for (let layer = 1; layer < variant.layers && !isOver; layer += 1) {
    await sleep(SNAPSHOT_MS);
    await ask(daemon, 'snapshot.take', { vm, snapshot: `s${layer}` });
    if (variant.passing !== true || layer === 1) continue;
    await ask(daemon, 'snapshot.delete', { vm, snapshot: `s${layer - 1}` });
    await ask(daemon, 'gc', {});
  }
  const { code, signal, stdout, stderr } = await work;
  if (code === 0) tally.tried(Number(stdout.trim().split('\n').at(-1)));
  if (code !== 0) tally.lost(`${variant.name}: ${signal ?? code}: ${stderr}`);
  if (device !== undefined) await ask(daemon, 'detach', { device });
  const { findings } = await ask(daemon, 'check', { vm, deep: true });
  if (findings.length > 0) tally.lost(JSON.stringify(findings));
  await ask(daemon, 'delete', { vm });
  tally.print();
}

t.test('as fsx does them', { skip: cannotServe(), timeout: TIMEOUT_MS * 4 }, async (t) => {
  const seed = newSeed();
  t.comment(`LAYERDISK_SEED=${seed}`);
  const daemon = await startDaemon(t);
  for (const [index, variant] of VARIANTS.entries()) {
    await t.test(variant.name, (t) => exercise(t, daemon, variant, seed + index));
  }
});
