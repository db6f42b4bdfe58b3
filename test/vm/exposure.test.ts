/** What the mount point shows: nodes that never change their meaning, and vm.json. */
import t from 'tap';
import { exposedPath } from '../../src/vm/exposure.js';
import { VmWorld } from '../support/vm-world.js';

t.test('nodes are kept for life and never given again', async (t) => {
  const world = await VmWorld.create();
  t.teardown(() => world.destroy());
  const { exposure } = world.service;
  await world.create('web', ['disk0', 'data']);
  await world.take('web', 'first');
  const before = exposure.find('web');
  t.match(before, {
    name: 'web',
    nodes: { folder: 0, snapshots: 1, configuration: 2 },
    disks: [
      { fileName: 'disk0.raw', node: 16, size: 32768, writable: true },
      { fileName: 'data.raw', node: 17 },
    ],
    snapshots: [{ name: 'first', node: 18, disks: [{ node: 19, writable: false }, { node: 20 }] }],
  });
  const seen = new Set([16, 17, 18, 19, 20]);
  await world.restore('web', 'first', 'saved');
  await world.deleteSnapshot('web', 'first');
  await world.take('web', 'first');
  await world.service.rename('web', 'site');
  await world.restart();
  const after = world.service.exposure.findByNumber(before?.number ?? 0);
  t.same(
    after?.disks.map((disk) => disk.node),
    [16, 17],
    'the files are the same ones',
  );
  const later = after?.snapshots.find((each) => each.name === 'first');
  for (const { node } of [later!, ...later!.disks]) t.notOk(seen.has(node), `${node} is new`);
  t.equal(world.service.exposure.find('web'), undefined);
  t.equal(world.service.exposure.findByNumber(99_999), undefined);
  t.same(world.service.exposure.list(), [{ name: 'site', number: before?.number }]);
});

t.test('vm.json shows the configuration, and nothing of the inside', async (t) => {
  const world = await VmWorld.create();
  t.teardown(() => world.destroy());
  await world.service.create('web', [{ size: 4096 }], { nics: [{ mode: 'nat' }] });
  await world.service.takeSnapshot('web', { name: 'first', message: 'why' });
  await world.service.takeSnapshot('web', { name: 'second' });
  const text = world.service.exposure.find('web')?.configuration ?? '';
  t.match(JSON.parse(text), {
    name: 'web',
    vcpus: 1,
    nics: [{ mode: 'nat' }],
    disks: [{ name: 'disk0', size: 4096, file: 'disk0.raw' }],
    snapshots: [
      { name: 'first', message: 'why', current: false },
      { name: 'second', parent: 'first', current: true },
    ],
  });
  t.notOk(text.includes(world.manifest('web').disks[0]?.head ?? ''));
});

t.test('paths', async (t) => {
  t.equal(exposedPath('web', undefined, 'disk0'), 'web/disk0.raw');
  t.equal(exposedPath('web', 'first', 'disk0'), 'web/snapshots/first/disk0.raw');
});
