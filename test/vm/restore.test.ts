/**
 * Restoring: disks and hardware come back, the present state is kept or lost as was said, nothing
 * else changes.
 */
import t, { type Test } from 'tap';
import type { RestoreRequest } from '../../src/vm/restore.js';
import { codeOf, digestContents, edgesOf, VmWorld } from '../support/vm-world.js';

async function open(t: Test): Promise<VmWorld> {
  const world = await VmWorld.create();
  t.teardown(() => world.destroy());
  await world.create('web');
  await world.write('web', 0, 4096);
  await world.take('web', 'first');
  await world.write('web', 0, 4096);
  return world;
}

async function check(t: Test, world: VmWorld): Promise<void> {
  t.same(digestContents(await world.contents()), digestContents(world.model), 'every byte');
}

t.test('it must be said what becomes of the present state', async (t) => {
  const world = await open(t);
  const wrong: Omit<RestoreRequest, 'snapshot'>[] = [
    {},
    { discard: false },
    { saveCurrent: false },
    { saveCurrent: true, discard: true },
    { saveCurrent: 'x', discard: true },
  ];
  for (const request of wrong) {
    await t.rejects(
      world.service.restoreSnapshot('web', { snapshot: 'first', ...request }),
      { code: 'usage', hint: /--save-current.*--discard/ },
      JSON.stringify(request),
    );
  }
  const bad: [request: RestoreRequest, code: string][] = [
    [{ snapshot: 'none', discard: true }, 'not-found'],
    [{ snapshot: 'first', saveCurrent: 'first' }, 'exists'],
    [{ snapshot: 'first', saveCurrent: '../x' }, 'usage'],
    [{ snapshot: 'first', saveCurrent: '' }, 'usage'],
  ];
  for (const [request, code] of bad) {
    t.equal(await codeOf(world.service.restoreSnapshot('web', request)), code);
  }
  await check(t, world);
  t.same(world.hooks.changed, []);
});

t.test('kept under a name', async (t) => {
  const world = await open(t);
  await world.restore('web', 'first', 'saved');
  t.same(edgesOf(world.manifest('web')), ['*: first', 'first: -', 'saved: first']);
  await check(t, world);
  const { saved } = await world.service.restoreSnapshot('web', {
    snapshot: 'saved',
    saveCurrent: true,
  });
  t.equal(saved?.name, 'before-saved');
  t.match(saved?.message, /saved before saved was restored/);
});

t.test('not while somebody has just opened a disk; nobody opens one meanwhile', async (t) => {
  const world = await open(t);
  const { hooks } = world;
  const before = JSON.stringify(world.manifest('web').snapshots);
  hooks.opens = 1;
  const restored = world.service.restoreSnapshot('web', { snapshot: 'first', saveCurrent: 'kept' });
  await t.rejects(restored, { code: 'busy', message: /opened just now/ });
  t.equal(JSON.stringify(world.manifest('web').snapshots), before, 'what was saved is taken back');
  t.equal(hooks.closed.size, 0, 'opened again');
  hooks.opens = 0;
  const seen: number[] = [];
  hooks.contentChanged = async () => void seen.push(hooks.closed.size);
  await world.restore('web', 'first', 'kept');
  t.same(seen, [1], 'closed until no cache is stale');
  t.equal(hooks.closed.size, 0);
  await check(t, world);
});

t.test('the hardware comes back, with its addresses', async (t) => {
  const world = await VmWorld.create();
  t.teardown(() => world.destroy());
  await world.service.create('web', [{ size: 4096 }], { vcpus: 2, nics: [{ mode: 'nat' }] });
  const before = world.manifest('web');
  await world.service.takeSnapshot('web', { name: 'first' });
  await world.service.setHardware('web', { vcpus: 4, memory: 2 ** 32, nics: [] });
  t.match(world.manifest('web'), { vcpus: 4, nics: [] });
  await world.service.restoreSnapshot('web', { snapshot: 'first', discard: true });
  const { vcpus, memory, nics } = before;
  t.match(world.manifest('web'), { vcpus, memory, nics });
});

t.test('the file stays the same one, and the kernel is told', async (t) => {
  const world = await open(t);
  const { number, disks } = world.manifest('web');
  const [disk] = disks;
  await world.restore('web', 'first');
  const [restored] = world.manifest('web').disks;
  t.equal(restored?.node, disk?.node, 'the inode');
  t.not(restored?.head, disk?.head);
  t.same(world.hooks.changed, [{ vmNumber: number, nodes: [disk?.node] }]);
  await world.service.collectGarbage(false);
  t.notOk(world.fake.ids().includes(disk?.head ?? ''), 'the discarded head is garbage');
});

t.test('refused while somebody uses the disk', async (t) => {
  const world = await open(t);
  const holder = {
    what: 'it is mounted at /mnt/x (/dev/loop3)',
    remedy: 'layerdisk unmount /mnt/x',
    byPath: true,
  };
  world.hooks.holding.push({ exposed: 'heads', vm: 'web', holder });
  for (const saveCurrent of [undefined, 'saved']) {
    await t.rejects(world.restore('web', 'first', saveCurrent), {
      code: 'busy',
      message: 'cannot restore "web@first": it is mounted at /mnt/x (/dev/loop3)',
      hint: 'layerdisk unmount /mnt/x',
    });
  }
  t.equal(await codeOf(world.take('web', 'second')), 'ok', 'a snapshot may be taken');
  t.equal(await codeOf(world.service.deleteSnapshot('web', 'second')), 'ok');
  world.forget('web@second/');
  await check(t, world);
});

t.test('a process with an open file does not stop a rename', async (t) => {
  const world = await open(t);
  const holder = { what: 'process 7 (qemu) has it open', byPath: false };
  world.hooks.holding.push({ exposed: 'heads', vm: 'web', holder });
  t.equal(await codeOf(world.service.rename('web', 'new')), 'ok');
  world.hooks.holding.push({ exposed: 'heads', vm: 'new', holder });
  t.equal(await codeOf(world.service.delete('new')), 'busy');
});

t.test('the consistency of a snapshot is what the flush said', async (t) => {
  const world = await open(t);
  world.hooks.consistency = 'crash-consistent: the file system at /mnt was not written back';
  await world.take('web', 'second');
  t.equal(world.manifest('web').snapshots[1]?.consistency, world.hooks.consistency);
  t.same(world.hooks.flushed, ['web', 'web']);
});

t.test('depth', async (t) => {
  const world = await open(t);
  const { store, engine, service } = world;
  const [disk] = world.manifest('web').disks;
  let head = disk!.head;
  // The head of "web" has two deltas already.
  for (let depth = 2; depth < 1000; depth += 1) {
    const below = { kind: 'delta', id: head } as const;
    head = await engine.deltas.create({ below, virtualSize: disk!.size, allocation: 'dynamic' });
  }
  const entry = store.catalog.get('web');
  await store.change(entry, { ...world.manifest('web'), disks: [{ ...disk!, head }] });
  t.equal(service.chainFacts(head).depth, 1000);
  const refused: Promise<unknown>[] = [
    service.takeSnapshot('web', { name: 'deep' }),
    service.restoreSnapshot('web', { snapshot: 'first', saveCurrent: true }),
    service.clone({ vm: 'web', name: 'new', mode: 'linked', hardware: {} }),
  ];
  for (const attempt of refused) {
    await t.rejects(attempt, {
      code: 'not-supported',
      message: /the chain of web\/disk0 has 1000 deltas/,
      hint: /delete snapshots|full clone/,
    });
  }
  t.equal(await codeOf(world.restore('web', 'first')), 'ok', 'a way out: restore');
  await check(t, world);
});

t.test('the kernel forgets what disks showed, whatever fails after they changed', async (t) => {
  const changes: [name: string, act: (world: VmWorld) => Promise<unknown>][] = [
    ['restore', (world) => world.restore('web', 'first')],
    ['resize', (world) => world.resize('web', 4096)],
    ['resize past what it was', (world) => world.resize('web', 65_536)],
    ['a start of the guest', (world) => world.service.resetImmutable('web')],
  ];
  for (const [name, act] of changes) {
    let isOver = false;
    for (let step = 0; !isOver; step += 1) {
      const world = await open(t);
      if (name === 'resize past what it was') await world.resize('web', 4096);
      if (name === 'a start of the guest') {
        await world.service.changeKinds('web', [{ disk: 'disk0', kind: 'immutable' }]);
        await world.write('web', 0, 10);
      }
      const { number, disks } = world.manifest('web');
      world.hooks.changed.length = 0;
      world.faults.arm(step);
      await act(world).catch(() => undefined);
      isOver = world.faults.steps.length <= step;
      const failed = world.faults.steps[step] ?? 'nothing';
      world.faults.record();
      const hasChanged = world.manifest('web').disks[0]?.head !== disks[0]?.head;
      const told = world.hooks.changed.at(-1);
      const expected = { vmNumber: number, nodes: [disks[0]?.node] };
      t.same(told, hasChanged ? expected : undefined, `${name}, ${failed} fails`);
    }
  }
});
