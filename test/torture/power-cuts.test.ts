/**
 * Power cuts: the file system below a store is shut down in the middle of random work, so that
 * nothing that was not synced is left. What was flushed is there, every sector is old or new, each
 * operation is there wholly or not at all, and the store opens and checks clean by itself.
 */
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { MiB } from '../../src/common/units.js';
import { cannotServe, loopDevice, mountsBelow } from '../support/mount-guard.js';
import { createRandom, newSeed, type Random } from '../support/random.js';
import { cutPower, mountAnew } from '../support/remount.js';
import { runProgram, tool } from '../support/run-program.js';
import { Tally, triesOr } from './tally.js';
import { type Place, problemOf, startWorker } from './worker-process.js';

const FILE_SYSTEMS = {
  ext4: { size: 128 * MiB, make: ['mkfs.ext4', '-q', '-F'] },
  xfs: { size: 320 * MiB, make: ['mkfs.xfs', '-q', '-f'] },
} as const;
type FileSystem = keyof typeof FILE_SYSTEMS;

const CUTS = triesOr(12);
/** Of a worker, from the end of its comparison on. */
const LIFE_MS = 250;

async function makeFileSystem(t: Test, kind: FileSystem) {
  const folder = await mkdtemp(join(tmpdir(), 'layerdisk-power-'));
  const on = join(folder, 'on');
  t.teardown(async () => {
    if (mountsBelow(on).length > 0) await runProgram('umount', ['-l', on]);
    await rm(folder, { recursive: true, force: true });
  });
  const { size, make } = FILE_SYSTEMS[kind];
  const image = join(folder, 'image');
  await tool('truncate', ['-s', String(size), image]);
  await tool(make[0], [...make.slice(1), image]);
  const device = await loopDevice(t, image);
  await mkdir(on);
  return { folder, on, device };
}

/** One life of a store: compared with the journal, worked on, cut off. */
async function cut(t: Test, on: string, place: Place, random: Random): Promise<string | undefined> {
  const worker = startWorker(t, place, random.below(2 ** 31));
  const wrong = await worker.begun();
  if (wrong === undefined) await sleep(random.below(LIFE_MS));
  const died = worker.status === undefined ? undefined : worker.said;
  await cutPower(on);
  await worker.kill();
  return wrong ?? (died === undefined ? undefined : `the worker died by itself: ${died}`);
}

for (const kind of Object.keys(FILE_SYSTEMS) as FileSystem[]) {
  t.test(`power cuts on ${kind}`, { skip: cannotServe() }, async (t) => {
    const seed = newSeed();
    t.comment(`LAYERDISK_SEED=${seed}`);
    const random = createRandom(seed);
    const tally = new Tally(t);
    const { folder, on, device } = await makeFileSystem(t, kind);
    const place = { store: join(on, 'store'), journal: join(folder, 'journal') };
    const count = Math.ceil(CUTS / 2);
    await tool('mount', [device, on]);
    for (let index = 0; index < count && tally.losses === 0; index += 1) {
      const problem = await cut(t, on, { ...place, death: 'power' }, random);
      tally.judge(`cut ${index}`, problem);
      await tool('umount', [on]);
      await mountAnew(device, on);
    }
    const last = await problemOf({ ...place, death: 'power' });
    if (last !== undefined) tally.lost(`after the last cut: ${last}`);
    await tool('umount', [on]);
    tally.print({ on: kind });
  });
}
