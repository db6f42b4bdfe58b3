/**
 * Power cuts: random work is written down call by call, and of what a file system may leave after
 * a cut at any point of it, thousands of states are built and opened. What was flushed is there,
 * what was not reads as old or new, control operations are wholly there or not at all, and the
 * store opens without a repair.
 *
 * LAYERDISK_TRIES=n: so many states. LAYERDISK_SEED=n repeats a run.
 */
import { rmSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import {
  CrashStates,
  fingerprintOf,
  layOut,
  NOTHING_LOST,
  randomChoice,
} from '../support/crash-states.js';
import { CrashWorkload, shapeOf } from '../support/crash-workload.js';
import { aroundHostCalls } from '../support/host-faults.js';
import { HostTape, type TapeOp } from '../support/host-tape.js';
import { createRandom, newSeed, type Random } from '../support/random.js';
import { scratchParent } from '../support/vm-operations.js';
import { digestContents, VmWorld } from '../support/vm-world.js';
import { Tally, triesOr } from './tally.js';

const STATES = triesOr(20_000);
/** States of one piece of work, and its steps. */
const OF_ONE = 400;
const STEPS = 24;
/** One state of so many is also collected, checked, written to and opened again. */
const WHOLE = 10;
const MOST_LOSSES = 20;

/** What is wrong with a state that was laid out; undefined for nothing. */
async function judge(
  work: CrashWorkload,
  folder: string,
  position: number,
  whole: boolean,
): Promise<string | undefined> {
  const world = await VmWorld.adopt(folder, new Map(), 'f'.repeat(32));
  try {
    const [damaged] = world.store.catalog.damaged();
    if (damaged !== undefined) return `manifest of ${damaged.name}: ${damaged.problem.message}`;
    const found = await world.contents();
    const text = shapeOf(world);
    const allowed = work.allowedAt(position);
    const problems: string[] = [];
    for (const shape of allowed.filter((each) => each.text === text)) {
      const wrong = [...shape.disks].map(([key, history]) => {
        const bytes = found.get(key);
        if (bytes === undefined) return `${key} is missing`;
        const problem = history.judge(bytes, position);
        return problem === undefined ? undefined : `${key}: ${problem}`;
      });
      const problem = wrong.find((each) => each !== undefined);
      if (problem === undefined) return whole ? await goOn(world) : undefined;
      problems.push(problem);
    }
    if (problems.length > 0) return problems.join(' | ');
    return `names are ${text}, not ${allowed.map((each) => each.text).join(' or ')}`;
  } finally {
    await world.stop();
  }
}

/** The store can be worked with: nothing is left over, nothing damaged, and new data stays. */
async function goOn(world: VmWorld): Promise<string | undefined> {
  const before = JSON.stringify(digestContents(await world.contents()));
  await world.service.collectGarbage(false);
  await world.service.collectGarbage(false);
  const { files } = await world.service.collectGarbage(true);
  if (files.length > 0) return `left over: ${files}`;
  const { findings } = await world.service.check({ deep: true, repair: false });
  if (findings.length > 0) return `check: ${JSON.stringify(findings)}`;
  if (JSON.stringify(digestContents(await world.contents())) !== before) {
    return 'other content after the collection';
  }
  for (const { name } of world.service.list()) {
    for (const { name: disk, head, size } of world.manifest(name).disks) {
      world.model.set(`${name}/${disk}`, Buffer.alloc(size));
      await world.write(name, 2048, 4096, disk);
      await world.engine.volumes.flush(head);
    }
  }
  const written = JSON.stringify(digestContents(await world.contents()));
  await world.restart();
  if (JSON.stringify(digestContents(await world.contents())) !== written) {
    return 'other content after a restart';
  }
  return undefined;
}

async function crash(random: Random, count: number, tally: Tally): Promise<void> {
  const seen = new Set<string>();
  const work = await CrashWorkload.start(random);
  const folder = await mkdtemp(join(scratchParent(), 'layerdisk-crash-'));
  try {
    for (let step = 0; step < STEPS; step += 1) await work.step();
    work.tape.end();
    const states = new CrashStates(work.tape);
    for (let tried = 0; tried < count; tried += 1) {
      const position = random.below(work.tape.position + 1);
      const pending = states.pending(position);
      const choice = tried % 10 === 0 ? NOTHING_LOST : randomChoice(random, pending);
      const state = states.build(position, choice);
      const mark = `${position} ${fingerprintOf(state)}`;
      if (seen.has(mark)) continue;
      seen.add(mark);
      tally.tried();
      layOut(state, join(folder, 'store'));
      const whole = random.below(WHOLE) === 0;
      const problem = await judge(work, folder, position, whole).catch((error: Error) =>
        String(error.stack),
      );
      if (problem === undefined) continue;
      const lost = pending
        .filter((index) => !choice.has(work.tape.ops[index]!, index))
        .map((index) => `${index} ${work.tape.ops[index]!.label}`);
      tally.lost(
        `seed ${random.seed}, cut at ${position}: ${problem}; without ${lost.join(', ')}; ` +
          `after ${JSON.stringify(work.log)}`,
      );
    }
  } finally {
    await work.end();
    rmSync(folder, { recursive: true });
  }
}

t.test('power cuts', async (t) => {
  const seed = newSeed();
  t.comment(`LAYERDISK_SEED=${seed}`);
  const tally = new Tally(t);
  for (let run = 0; tally.tries < STATES && tally.losses < MOST_LOSSES; run += 1) {
    await crash(createRandom(seed + run), Math.min(OF_ONE, STATES - tally.tries), tally);
  }
  tally.print();
});

for (const what of ['snapshot', 'VM'] as const) {
  t.test(`nothing of a ${what} goes before its deleting is durable`, async (t) => {
    const world = await VmWorld.create('real', scratchParent());
    t.teardown(() => world.destroy());
    await world.create('web');
    await world.write('web', 0, 8192);
    await world.take('web', 'first');
    await world.write('web', 0, 8192);
    await world.engine.volumes.flush(world.manifest('web').disks[0]!.head);
    const before = digestContents(await world.contents());
    await world.restart();
    const tape = new HostTape(join(world.folder, 'store'));
    t.teardown(() => tape.end());
    let failed = false;
    const restore = aroundHostCalls(({ label }, run) => {
      if (failed || label !== 'manifest.sync-folder') return run();
      failed = true;
      throw Object.assign(new Error('EIO'), { code: 'EIO' });
    });
    t.teardown(restore);
    const { service } = world;
    const remove = async (): Promise<unknown> =>
      what === 'VM' ? service.delete('web') : service.deleteSnapshot('web', 'first');
    await t.rejects(async () => void (await remove()), { message: /cannot make it durable/ });
    await service.collectGarbage(false);
    const undone = ['manifest.rename', 'manifest.trash'];
    const choice = { has: (op: TapeOp) => !undone.includes(op.label), hasSector: () => true };
    const folder = await mkdtemp(join(scratchParent(), 'layerdisk-crash-'));
    t.teardown(() => rmSync(folder, { recursive: true }));
    layOut(new CrashStates(tape).build(tape.position, choice), join(folder, 'store'));
    const after = await VmWorld.adopt(folder, new Map(), 'f'.repeat(32));
    t.teardown(() => after.stop());
    t.same(after.store.catalog.damaged(), []);
    if (after.service.list().length === 0) return;
    const found = digestContents(await after.contents());
    for (const { name } of after.manifest('web').snapshots) t.equal(name, 'first');
    t.match(before, found, 'what is there shows what it showed');
  });
}
