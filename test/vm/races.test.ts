/**
 * Operations at the same time: each as if alone, and of two that exclude each other exactly one is
 * done.
 */
import t, { type Test } from 'tap';
import { codeOf, digestContents, edgesOf, VmWorld } from '../support/vm-world.js';

async function open(t: Test): Promise<VmWorld> {
  const world = await VmWorld.create();
  t.teardown(() => world.destroy());
  await world.create('web');
  await world.write('web', 0, 4096);
  await world.take('web', 'first');
  await world.write('web', 4096, 100);
  return world;
}

async function codes(attempts: readonly Promise<unknown>[]): Promise<string[]> {
  return (await Promise.all(attempts.map(codeOf))).sort();
}

async function settle(t: Test, world: VmWorld): Promise<void> {
  const before = digestContents(await world.contents());
  await world.service.collectGarbage(false);
  await world.restart();
  t.same(digestContents(await world.contents()), before, 'nothing was lost');
  t.same((await world.service.collectGarbage(true)).files, [], 'and nothing is left over');
}

t.test('two of one name', async (t) => {
  const world = await open(t);
  const { service } = world;
  const disks = [{ size: 4096 }];
  const take = (name: string) => service.takeSnapshot('web', { name });
  const linked = (name: string) =>
    service.clone({ vm: 'web', snapshot: 'first', name, mode: 'linked', hardware: {} });
  const full = (name: string) =>
    service.clone({ vm: 'web', snapshot: 'first', name, mode: 'full', hardware: {} });
  t.same(await codes([service.create('a', disks), service.create('a', disks)]), ['exists', 'ok']);
  t.same(await codes([take('s'), take('s')]), ['exists', 'ok']);
  t.same(await codes([linked('b'), full('b'), service.create('b', disks)]), [
    'exists',
    'exists',
    'ok',
  ]);
  t.same(await codes([service.rename('a', 'c'), service.rename('b', 'c')]), ['exists', 'ok']);
  t.same(await codes([service.rename('c', 'd'), service.rename('c', 'e')]), ['not-found', 'ok']);
  t.same(await codes([service.delete('web'), service.delete('web')]), ['not-found', 'ok']);
  await settle(t, world);
});

t.test('many snapshots at once stand on one another', async (t) => {
  const world = await open(t);
  const names = Array.from({ length: 12 }, (_, index) => `s${index}`);
  await Promise.all(names.map((name) => world.take('web', name)));
  const chain = ['first', ...names];
  const expected = names.map((name, index) => `${name}: ${chain[index]}`);
  t.same(edgesOf(world.manifest('web')), [...expected, 'first: -', '*: s11'].sort());
  t.same(digestContents(await world.contents()), digestContents(world.model));
  await settle(t, world);
});

t.test('delete and restore while it is cloned', async (t) => {
  for (const mode of ['linked', 'full'] as const) {
    const world = await open(t);
    const { service } = world;
    const clone = (name: string) =>
      service.clone({ vm: 'web', snapshot: 'first', name, mode, hardware: {} });
    const outcome = await codes([
      clone('one'),
      service.deleteSnapshot('web', 'first'),
      service.collectGarbage(false),
      clone('two'),
      service.delete('web'),
      service.collectGarbage(false),
    ]);
    t.same(outcome, ['not-found', 'ok', 'ok', 'ok', 'ok', 'ok'], 'two came too late');
    const expected = Buffer.from(world.model.get('web@first/disk0') ?? '');
    t.ok((await world.contents()).get('one/disk0')?.equals(expected));
    await settle(t, world);
  }
});

t.test('garbage is collected while everything is being made', async (t) => {
  const world = await open(t);
  const { service } = world;
  const path = await world.rawFile('base.img', Buffer.alloc(8192, 'base'));
  const images = [{ path, options: { format: 'raw' } }];
  const work: Promise<unknown>[] = [];
  for (const index of [0, 1, 2, 3, 4, 5]) {
    const clone = { vm: 'web', snapshot: 'first', hardware: {} };
    work.push(
      service.create(`new${index}`, [{ size: 4096 }, { size: 8192 }]),
      service.collectGarbage(false),
      service.clone({ ...clone, name: `linked${index}`, mode: 'linked' }),
      service.importImages(`foreign${index}`, images),
      service.collectGarbage(false),
      service.clone({ ...clone, name: `full${index}`, mode: 'full' }),
      service.takeSnapshot('web', { name: `s${index}` }),
      service.importImages(`copied${index}`, images, { copy: true }),
      service.collectGarbage(false),
    );
  }
  t.same([...new Set(await codes(work))], ['ok']);
  t.equal(service.list().length, 1 + 6 * 5);
  await settle(t, world);
});

t.test('a VM that is replaced while someone waits for it', async (t) => {
  const world = await open(t);
  const { service } = world;
  const attempts = [
    service.delete('web'),
    service.setHardware('web', { vcpus: 2 }),
    service.create('web', [{ size: 4096 }]),
  ];
  t.same(
    await codes(attempts),
    ['exists', 'not-found', 'ok'],
    'while it is there, its name is taken',
  );
  const first = world.service.exclusively('linked', async () => undefined);
  t.equal(await codeOf(first), 'not-found');
});

t.test('nobody opens what is just being deleted', async (t) => {
  const world = await open(t);
  const { hooks, service, store } = world;
  const snapshots = () => store.load('web').snapshots.map(({ name }) => name);
  const cases: [work: () => Promise<unknown>, isThere: () => boolean][] = [
    [() => service.deleteSnapshot('web', 'first'), () => snapshots().includes('first')],
    [() => service.delete('web'), () => service.has('web')],
  ];
  const holdOpens = hooks.holdOpens.bind(hooks);
  for (const [work, isThere] of cases) {
    hooks.opens = 1;
    await t.rejects(work(), { code: 'busy', message: /opened just now/ });
    t.equal(isThere(), true, 'who opened it between the two looks keeps it');
    t.equal(hooks.closed.size, 0, 'it can be opened again');
    hooks.opens = 0;
    const seen: boolean[] = [];
    hooks.holdOpens = (number) => {
      seen.push(isThere());
      const { stillOpen, release } = holdOpens(number);
      return {
        stillOpen,
        release: () => {
          seen.push(isThere());
          release();
        },
      };
    };
    await work();
    t.same(seen, [true, false], 'held from before it goes until it is gone');
    t.equal(hooks.closed.size, 0);
  }
});
