/**
 * Every operation fails at every step: alone, and as a crash after which nothing more succeeds.
 * Afterwards the store holds the state before or the state after, with every byte, and the garbage
 * is collected.
 */
import t, { type Test } from 'tap';
import { operations as everyOperation, type Operation, stateOf } from '../support/vm-operations.js';
import { VmWorld } from '../support/vm-world.js';

const base = Buffer.alloc(8192, 'base');

/**
 * `web` with first -- second and the present state under second; `twin` is a linked clone of first.
 */
async function prepare(): Promise<VmWorld> {
  const world = await VmWorld.create();
  await world.create('web', ['disk0', 'data']);
  await world.write('web', 0, 5000);
  await world.take('web', 'first');
  await world.write('web', 4096, 5000, 'data');
  await world.take('web', 'second', true);
  await world.write('web', 8192, 100);
  await world.clone('web@first', 'twin', 'linked');
  await world.write('twin', 0, 10);
  await world.import('foreign', base, false);
  await world.take('foreign', 'running', true);
  await world.restore('foreign', 'running');
  return world;
}

const operations: readonly Operation[] = [
  // The others are the real engine's business: see host-faults.test.ts.
  ...everyOperation.filter(({ name }) => !/static|check|compact/.test(name)),
  { name: 'snapshot take --memory', act: (world) => world.take('web', 'third', true) },
  { name: 'restore with memory', act: (world) => world.restore('web', 'second') },
  {
    name: 'the memory is used',
    act: async (world) => void (await world.service.useMemory('foreign')),
  },
];

async function stateAfter(act: Operation['act']): Promise<{ state: string; steps: string[] }> {
  const world = await prepare();
  try {
    world.faults.record();
    await act(world);
    const steps = [...world.faults.steps];
    return { state: await stateOf(world), steps };
  } finally {
    await world.destroy();
  }
}

/** No delta, base record or temporary file that nothing needs. */
async function checkNoGarbage(t: Test, world: VmWorld, what: string): Promise<void> {
  await world.service.collectGarbage(false);
  const { files } = await world.service.collectGarbage(true);
  t.same(files, [], `${what}: everything left is in use`);
}

async function failAt(
  t: Test,
  { act }: Operation,
  position: number,
  allowed: readonly string[],
  onwards: boolean,
): Promise<void> {
  const world = await prepare();
  try {
    world.faults.arm(position, onwards);
    const failure = await act(world).then(
      () => undefined,
      (error: unknown) => error,
    );
    const what = `${world.faults.steps[position]} (${position})${onwards ? ' and on' : ''}`;
    if (failure !== undefined && !/injected at/.test(String(errorChain(failure)))) throw failure;
    t.equal(world.hooks.frozen.size, 0, `${what}: nothing stands still`);
    const state = await stateOf(world);
    t.ok(allowed.includes(state), `${what}: before or after`);
    await world.restart();
    t.equal(await stateOf(world), state, `${what}: the same after a restart`);
    await checkNoGarbage(t, world, what);
    t.equal(await stateOf(world), state, `${what}: and after the collection`);
  } finally {
    await world.destroy();
  }
}

function errorChain(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return `${error.message} < ${errorChain(error.cause)}`;
}

for (const operation of operations) {
  t.test(operation.name, async (t) => {
    const { state: before } = await stateAfter(async () => undefined);
    const { state: after, steps } = await stateAfter(operation.act);
    t.ok(steps.length > 0, `${steps.length} steps: ${steps.join(' ')}`);
    const between = operation.between === undefined ? [] : [operation.between];
    const others = await Promise.all(between.map(stateAfter));
    const atCrash = [before, after, ...others.map((each) => each.state)];
    for (const [position, step] of steps.entries()) {
      // What failed after its own commit stands; a failure before the second commit undoes the
      // first.
      const stands = step === 'manifest.sync-folder' || step === 'volume.switched';
      await failAt(t, operation, position, stands ? atCrash : [before, after], false);
      await failAt(t, operation, position, atCrash, true);
    }
  });
}
