/** Disks that come, go and get another size, on both engines. */
import t, { type Test } from 'tap';
import { MAX_DISKS } from '../../src/vm/create.js';
import { createRandom, newSeed } from '../support/random.js';
import { codeOf, DISK_SIZE, digestContents, ENGINES, VmWorld } from '../support/vm-world.js';

const STEPS = 60;

async function check(t: Test, world: VmWorld, what: string): Promise<void> {
  t.same(digestContents(await world.contents()), digestContents(world.model), what);
}

async function comeAndGo(t: Test, world: VmWorld): Promise<void> {
  await world.addDisk('web', 'data');
  await world.write('web', 100, 5000, 'data');
  await world.take('web', 'both');
  const [, before] = world.manifest('web').disks;
  await world.removeDisk('web', 'data');
  t.same(await codeOf(world.service.removeDisk('web', 'disk0')), 'usage', 'the only one stays');
  await check(t, world, 'the snapshot keeps it');
  await world.restore('web', 'both');
  await check(t, world, 'it comes back with the snapshot');
  const [, data] = world.manifest('web').disks;
  t.equal(data?.node, before?.node, 'as the file that it was: its serial number comes from that');
  const { node } = await world.service.addDisk('web', { size: 4096 });
  const nodes = world.manifest('web').snapshots.flatMap(({ disks }) => disks);
  t.notOk(
    nodes.some((disk) => disk.node === node),
    'its file is a new one',
  );
  t.equal(world.manifest('web').disks.at(-1)?.name, 'disk1', 'the first name that is free');
  world.model.set('web/disk1', Buffer.alloc(4096));
  await check(t, world, 'an empty one');
  await world.removeDisk('web', 'disk1');
}

async function changeSize(t: Test, world: VmWorld): Promise<void> {
  await world.resize('web', 2 * DISK_SIZE);
  await world.write('web', DISK_SIZE, DISK_SIZE);
  await world.take('web', 'large');
  await world.resize('web', 4096);
  await check(t, world, 'the end is gone');
  await world.resize('web', 4 * DISK_SIZE);
  await check(t, world, 'what was there before is not seen again');
  await world.write('web', 3 * DISK_SIZE, 5000);
  await world.take('web', 'larger');
  await world.restore('web', 'first');
  await check(t, world, 'a snapshot has the size it was taken with');
  await world.restore('web', 'larger');
  await world.clone('web@large', 'copy', 'full');
  await world.clone('web@larger', 'link', 'linked');
  await world.resize('link', DISK_SIZE);
  await world.resize('link', 4 * DISK_SIZE);
  await check(t, world, 'and so have clones');
  await world.restart();
  await check(t, world, 'after a restart');
}

async function hideBase(t: Test, world: VmWorld): Promise<void> {
  await world.import('foreign', Buffer.alloc(16_384, 'base'), false);
  await world.resize('foreign', 8192);
  await world.resize('foreign', 12_288);
  await check(t, world, 'what the image has there is hidden');
  await world.resize('foreign', 65_536);
  await check(t, world, 'past its end, too');
}

/** What hides the former end of a disk may lie in a delta that is merged with smaller ones. */
async function mergeBelow(t: Test, world: VmWorld): Promise<void> {
  await world.create('hider');
  await world.write('hider', 0, DISK_SIZE);
  await world.take('hider', 'full');
  await world.import('image', Buffer.alloc(DISK_SIZE, 'base'), false);
  for (const vm of ['hider', 'image']) {
    for (const size of [4096, DISK_SIZE, 8192, DISK_SIZE]) await world.resize(vm, size);
  }
  await check(t, world, 'only the beginning is left');
  await world.service.collectGarbage(false);
  await world.restart();
  await check(t, world, 'and so it is after the deltas in between were merged');
}

async function walk(t: Test, world: VmWorld): Promise<void> {
  const seed = newSeed();
  t.comment(`LAYERDISK_SEED=${seed}`);
  const random = createRandom(seed);
  await world.create('any');
  for (let step = 0; step < STEPS; step += 1) {
    const size = world.manifest('any').disks[0]?.size ?? 0;
    const kind = random.below(4);
    const wanted = 4096 * (1 + random.below(40));
    if (kind === 0 && wanted !== size) await world.resize('any', wanted);
    else if (kind === 1) await world.take('any', `s${step}`);
    else if (kind === 2) {
      const { snapshots } = world.manifest('any');
      const one = snapshots[random.below(Math.max(1, snapshots.length))];
      if (one !== undefined && random.below(2) === 0) await world.restore('any', one.name);
      else if (one !== undefined) await world.deleteSnapshot('any', one.name);
    } else await world.write('any', random.below(size), 1);
    if (step % 10 === 9) await world.service.collectGarbage(false);
  }
  await check(t, world, 'every byte is as the model has it');
}

for (const engine of ENGINES) {
  t.test(`on the ${engine} engine`, async (t) => {
    const world = await VmWorld.create(engine);
    t.teardown(() => world.destroy());
    await world.create('web');
    await world.write('web', 0, DISK_SIZE);
    await world.take('web', 'first');
    await t.test('a disk more, and one less', (t) => comeAndGo(t, world));
    await t.test('larger, smaller, and larger again', (t) => changeSize(t, world));
    await t.test('a base image that is larger than the disk', (t) => hideBase(t, world));
    await t.test('rows are merged', (t) => mergeBelow(t, world));
    await t.test('at random', (t) => walk(t, world));
    if (engine === 'fake') return;
    const { findings } = await world.service.check({ deep: true, repair: false });
    t.same(
      findings.filter(({ kind }) => kind === 'damage'),
      [],
      'the store is whole',
    );
  });
}

t.test('what is refused changes nothing', async (t) => {
  const world = await VmWorld.create();
  t.teardown(() => world.destroy());
  await world.create('web', ['disk0', 'data']);
  await world.write('web', 0, 5000);
  const before = JSON.stringify(world.manifest('web'));
  const resize = (size: number, shrink = false, disk = 'disk0') =>
    world.service.resizeDisk('web', { disk, size, shrink });
  await t.rejects(resize(4096), { code: 'usage', hint: /--shrink/ });
  await t.rejects(resize(DISK_SIZE), { code: 'usage', message: /has 32 KiB already/ });
  await t.rejects(resize(5120, true), { code: 'usage', message: /no whole number of 4 KiB/ });
  await t.rejects(resize(2 ** 50), { code: 'usage', message: /above the maximum/ });
  await t.rejects(resize(0, true), { code: 'usage', message: /below the minimum/ });
  await t.rejects(resize(65_536, false, 'x'), { code: 'not-found', hint: /disk0, data/ });
  await t.rejects(world.service.removeDisk('web', 'x'), { code: 'not-found' });
  await t.rejects(world.service.addDisk('web', { name: 'data', size: 4096 }), { code: 'exists' });
  await t.rejects(world.service.addDisk('web', { name: '../x', size: 4096 }), { code: 'usage' });
  await t.rejects(world.service.addDisk('web', { name: 'x', size: 1 }), { code: 'usage' });
  const busy = { code: 'busy', message: /in use by a test/ };
  const holder = { what: 'in use by a test', byPath: false };
  world.hooks.holding.push({ exposed: 'heads', vm: 'web', holder });
  await t.rejects(resize(65_536), busy);
  await t.rejects(world.service.removeDisk('web', 'data'), busy);
  world.hooks.holding.pop();
  t.equal(JSON.stringify(world.manifest('web')), before);
  await world.service.changeKinds('web', [{ disk: 'disk0', kind: 'immutable' }]);
  await t.rejects(resize(65_536), { code: 'not-supported', hint: /--disk-kind disk0=normal/ });
  for (let count = 2; count < MAX_DISKS; count += 1) {
    await world.service.addDisk('web', { size: 4096 });
  }
  await t.rejects(world.service.addDisk('web', { size: 4096 }), {
    code: 'usage',
    message: /limit/,
  });
});
