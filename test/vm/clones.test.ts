/**
 * Clones: linked and full, of snapshots and of the present state; what they share and what they do
 * not.
 */
import t, { type Test } from 'tap';
import {
  codeOf,
  DISK_SIZE,
  digestContents,
  ENGINES,
  type EngineKind,
  edgesOf,
  VmWorld,
} from '../support/vm-world.js';

async function check(t: Test, world: VmWorld): Promise<void> {
  t.same(digestContents(await world.contents()), digestContents(world.model), 'every byte');
}

async function open(t: Test, engine: EngineKind = 'fake'): Promise<VmWorld> {
  const world = await VmWorld.create(engine);
  t.teardown(() => world.destroy());
  await world.create('gold', ['disk0', 'data']);
  await world.write('gold', 0, 9000);
  await world.write('gold', 4096, 100, 'data');
  await world.take('gold', 'first');
  await world.write('gold', 0, 50);
  return world;
}

for (const engine of ENGINES) {
  t.test(`a linked clone of a snapshot (${engine} engine)`, async (t) => {
    const world = await open(t, engine);
    await world.clone('gold@first', 'one', 'linked');
    await world.clone('gold@first', 'two', 'linked');
    await world.write('one', 4000, 200);
    await world.write('two', 0, DISK_SIZE, 'data');
    await world.write('gold', 8192, 4096);
    await check(t, world);
    t.match(world.manifest('one').origin, { vm: 'gold', snapshot: 'first' });
    t.same(world.manifest('one').snapshots, []);

    t.comment('it has snapshots and clones of its own');
    await world.take('one', 'mine');
    await world.write('one', 0, 10);
    await world.clone('one@mine', 'three', 'linked');
    await world.write('three', 20000, 10);
    await check(t, world);

    t.comment('the source may go: what clones stand on stays, and is counted');
    await world.deleteSnapshot('gold', 'first');
    await check(t, world);
    t.equal(await world.delete('gold'), 2, 'the sealed delta of each disk');
    await world.service.collectGarbage(false);
    await check(t, world);
    await world.restart();
    await check(t, world);
    t.equal(await world.delete('one'), 4, 'its own, and those that gold left it');
    t.equal(await world.delete('two'), 0);
    await world.service.collectGarbage(false);
    await check(t, world);
    t.equal(await world.delete('three'), 0);
    await world.service.collectGarbage(false);
    if (engine === 'fake') t.same(world.fake.ids(), [], 'nothing is left of all');
  });
}

for (const engine of ENGINES) {
  t.test(
    `a linked clone of the present state takes a snapshot first and says so (${engine} engine)`,
    async (t) => {
      const world = await open(t, engine);
      const { tookSnapshot } = await world.service.clone({
        vm: 'gold',
        name: 'one',
        mode: 'linked',
        hardware: {},
      });
      t.equal(tookSnapshot, 'clone-one');
      t.same(edgesOf(world.manifest('gold')), ['*: clone-one', 'clone-one: first', 'first: -']);
      world.copyModel('gold/', 'gold@clone-one/');
      world.copyModel('gold/', 'one/');
      await world.write('gold', 0, 10);
      await world.write('one', 0, 10);
      await check(t, world);
      await world.delete('one');
      await world.clone('gold', 'one', 'linked');
      t.ok(world.manifest('gold').snapshots.some((each) => each.name === 'clone-one-2'));
      await check(t, world);
    },
  );
}

for (const engine of ENGINES) {
  t.test(`a full clone stands alone (${engine} engine)`, async (t) => {
    const world = await open(t, engine);
    await world.clone('gold@first', 'one', 'full');
    await world.clone('gold', 'two', 'full');
    t.same(edgesOf(world.manifest('gold')), ['*: first', 'first: -'], 'the source looks as before');
    for (const name of ['one', 'two']) t.equal(world.manifest(name).origin, undefined);
    await world.write('gold', 0, 1000);
    await world.write('two', 512, 1000);
    await check(t, world);
    t.equal(await world.delete('gold'), 0);
    await world.service.collectGarbage(false);
    await check(t, world);
    const chains = ['one', 'two'].flatMap((name) =>
      world.manifest(name).disks.map((disk) => world.service.chainFacts(disk.head).depth),
    );
    t.same(chains, [1, 1, 1, 1]);
  });
}

t.test('a full clone is of one instant, whatever happens to the source meanwhile', async (t) => {
  for (const snapshot of [undefined, 'first']) {
    const world = await open(t);
    let pieces = 0;
    world.fake.onCopyPiece = async () => {
      pieces += 1;
      if (pieces > 3) await world.write('gold', (pieces % 8) * 4096, 4096);
      if (pieces === 5) await world.take('gold', 'meanwhile');
      if (pieces === 6) await world.restore('gold', 'first');
      if (pieces === 7) await world.deleteSnapshot('gold', 'first');
      if (pieces === 8) await world.service.collectGarbage(false);
      if (pieces === 9) await world.delete('gold');
      if (pieces === 10) await world.service.collectGarbage(false);
      if (pieces > 8) world.fake.onCopyPiece = async () => undefined;
    };
    // The model of the clone is that of the source at the start.
    const source = snapshot === undefined ? 'gold/' : 'gold@first/';
    world.copyModel(source, 'new/');
    const request = { vm: 'gold', name: 'new', mode: 'full' as const, hardware: {} };
    await world.service.clone(snapshot === undefined ? request : { ...request, snapshot });
    world.fake.onCopyPiece = async () => undefined;
    await world.service.collectGarbage(false);
    await check(t, world);
  }
});

t.test('a cancelled clone leaves nothing behind', async (t) => {
  const world = await open(t);
  const before = world.fake.ids().length;
  const stop = new AbortController();
  const seen: number[] = [];
  const clone = world.service.clone(
    { vm: 'gold', snapshot: 'first', name: 'new', mode: 'full', hardware: {} },
    {
      signal: stop.signal,
      onProgress: (done, total) => {
        seen.push(done / total);
        if (seen.length === 3) stop.abort();
      },
    },
  );
  t.equal(await codeOf(clone), 'interrupted');
  t.equal(world.fake.ids().length, before);
  t.notOk(world.service.has('new'));
  t.ok(seen.every((share) => share > 0 && share <= 1));
  await world.clone('gold@first', 'new', 'full');
  await check(t, world);
});

t.test('hardware and addresses of a clone', async (t) => {
  const world = await VmWorld.create();
  t.teardown(() => world.destroy());
  const nics = [{ mode: 'nat' }, { mode: 'bridged', network: 'br0' }] as const;
  await world.service.create('gold', [{ size: 4096 }], { vcpus: 2, nics });
  await world.service.takeSnapshot('gold', { name: 's' });
  await world.service.setHardware('gold', { vcpus: 8 });
  const macsOf = (vm: string) => world.manifest(vm).nics.map((nic) => nic.mac);
  const clone = async (name: string, more: object) => {
    await world.service.clone({ vm: 'gold', name, mode: 'linked', hardware: {}, ...more });
    return world.manifest(name);
  };
  const [nat, bridged] = macsOf('gold');
  t.match(await clone('a', { snapshot: 's' }), { vcpus: 2, nics }, 'the hardware of the snapshot');
  t.notOk(macsOf('a').some((mac) => macsOf('gold').includes(mac)));
  t.match(await clone('b', { snapshot: 's', mac: 'keep' }), { vcpus: 2 });
  t.same(macsOf('b'), [nat, bridged]);
  await clone('c', { snapshot: 's', mac: 'keep-nat' });
  t.equal(macsOf('c')[0], nat);
  t.not(macsOf('c')[1], bridged);
  t.match(await clone('d', { hardware: { vcpus: 5, memory: 2 ** 31 } }), {
    vcpus: 5,
    memory: 2 ** 31,
  });
  t.match(await clone('e', {}), { vcpus: 8 }, 'the present hardware');
  const taken = { nics: [{ mode: 'nat' as const, mac: nat ?? '' }] };
  t.equal(await codeOf(clone('f', { snapshot: 's', hardware: taken })), 'exists');
});
