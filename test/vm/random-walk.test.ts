/**
 * Random operations on a few VMs against the model: after every one, each byte of each disk and
 * snapshot. A failing run names its seed; `LAYERDISK_SEED=n` repeats it.
 */
import t, { type Test } from 'tap';
import { createRandom, newSeed, type Random } from '../support/random.js';
import {
  codeOf,
  DISK_SIZE,
  digestContents,
  ENGINES,
  type EngineKind,
  VmWorld,
} from '../support/vm-world.js';

const RUNS = 8;
const STEPS = 40;

/** One random operation; its text is for the log of a failing run. */
async function step(world: VmWorld, random: Random): Promise<string> {
  const vms = world.service.list().map(({ name }) => name);
  if (vms.length === 0 || (vms.length < 5 && random.below(8) === 0)) {
    const name = `vm${random.below(1000)}`;
    if (vms.includes(name)) return 'nothing';
    await world.create(name, random.below(2) === 0 ? ['disk0'] : ['disk0', 'data']);
    return `create ${name}`;
  }
  const vm = random.pick(vms);
  const manifest = world.manifest(vm);
  const snapshot =
    manifest.snapshots.length === 0 ? undefined : random.pick(manifest.snapshots).name;
  const fresh = `n${random.below(1_000_000)}`;
  const at = snapshot === undefined || random.below(2) === 0 ? vm : `${vm}@${snapshot}`;
  switch (random.below(10)) {
    case 0:
      await world.take(vm, fresh);
      return `take ${vm}@${fresh}`;
    case 1:
      if (snapshot !== undefined) {
        const saved = random.below(2) === 0 ? undefined : fresh;
        await world.restore(vm, snapshot, saved);
      }
      return `restore ${vm}@${snapshot}`;
    case 2:
      if (snapshot !== undefined) await world.deleteSnapshot(vm, snapshot);
      return `delete ${vm}@${snapshot}`;
    case 3:
      if (vms.length < 6) await world.clone(at, fresh, random.below(2) === 0 ? 'linked' : 'full');
      return `clone ${at} ${fresh}`;
    case 4:
      if (vms.length > 2) await world.delete(vm);
      return `delete ${vm}`;
    case 5:
      await world.service.rename(vm, fresh);
      world.moveModel(vm, fresh);
      return `rename ${vm} ${fresh}`;
    case 6:
      await world.service.collectGarbage(false);
      return 'gc';
    case 7:
      await world.restart();
      return 'restart';
    default: {
      const disk = random.pick(manifest.disks).name;
      const offset = random.below(DISK_SIZE);
      await world.write(vm, offset, 1 + random.below(DISK_SIZE - offset), disk);
      return `write ${vm}/${disk}`;
    }
  }
}

async function walk(t: Test, seed: number, engine: EngineKind): Promise<void> {
  const world = await VmWorld.create(engine);
  const log: string[] = [];
  try {
    const random = createRandom(seed);
    for (let count = 0; count < STEPS; count += 1) {
      log.push(await step(world, random));
      const found = digestContents(await world.contents());
      if (JSON.stringify(found) === JSON.stringify(digestContents(world.model))) continue;
      t.same(found, digestContents(world.model), `LAYERDISK_SEED=${seed}: ${log.join('; ')}`);
      return;
    }
    t.equal(await codeOf(world.service.collectGarbage(false)), 'ok');
    t.same((await world.service.collectGarbage(true)).files, []);
    t.same(digestContents(await world.contents()), digestContents(world.model), `seed ${seed}`);
  } catch (error) {
    t.fail(`LAYERDISK_SEED=${seed}: ${log.join('; ')}`, { error });
  } finally {
    await world.destroy();
  }
}

for (const engine of ENGINES) {
  t.test(`random walks (${engine} engine)`, async (t) => {
    const first = newSeed();
    const runs = process.env.LAYERDISK_SEED === undefined ? RUNS : 1;
    for (let run = 0; run < runs; run += 1) await walk(t, first + run, engine);
  });
}
