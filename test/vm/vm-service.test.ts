/**
 * VMs from creation to deletion: every edge of the snapshot tree and every byte at each of its
 * nodes.
 */
import t, { type Test } from 'tap';
import { DISK_SIZE, digestContents, ENGINES, edgesOf, VmWorld } from '../support/vm-world.js';

async function check(t: Test, world: VmWorld): Promise<void> {
  t.same(digestContents(await world.contents()), digestContents(world.model), 'every byte');
}

/** Makes this tree, with other bytes at each node, in VM `web`:
 *
 *     first -- second -- third
 *        |        +- side           (taken after restoring second)
 *        +- *                       (first restored again)
 */
async function growTree(world: VmWorld): Promise<void> {
  await world.create('web', ['disk0', 'data']);
  await world.write('web', 0, 8192);
  await world.write('web', 4096, 8192, 'data');
  await world.take('web', 'first');
  await world.write('web', 4096, 4096);
  await world.take('web', 'second');
  await world.write('web', 100, 9000);
  await world.take('web', 'third');
  await world.write('web', 0, 512);
  await world.restore('web', 'second');
  await world.write('web', 16384, 700, 'data');
  await world.take('web', 'side');
  await world.restore('web', 'first');
  await world.write('web', 8192, 3);
}

for (const engine of ENGINES) {
  t.test(`a snapshot tree (${engine} engine)`, async (t) => {
    const world = await VmWorld.create(engine);
    t.teardown(() => world.destroy());
    await growTree(world);
    t.same(edgesOf(world.manifest('web')), [
      '*: first',
      'first: -',
      'second: first',
      'side: second',
      'third: second',
    ]);
    await check(t, world);

    t.comment('deleting a node with children and siblings changes no other content');
    await world.deleteSnapshot('web', 'second');
    t.same(edgesOf(world.manifest('web')), ['*: first', 'first: -', 'side: first', 'third: first']);
    await world.deleteSnapshot('web', 'first');
    t.same(edgesOf(world.manifest('web')), ['*: -', 'side: -', 'third: -']);
    await world.service.collectGarbage(false);
    await check(t, world);

    t.comment('and a restart changes nothing');
    await world.restart();
    await check(t, world);
    await world.write('web', 0, DISK_SIZE);
    await check(t, world);
  });
}
