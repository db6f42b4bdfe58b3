/**
 * Kinds of disks: what a snapshot, a restore, a clone and the start of a guest do to each, against
 * a model that knows only contents.
 */
import t, { type Test } from 'tap';
import { codeOf, digestContents, ENGINES, VmWorld } from '../support/vm-world.js';

async function open(t: Test, kind: (typeof ENGINES)[number], disks: string[]): Promise<VmWorld> {
  const world = await VmWorld.create(kind);
  t.teardown(() => world.destroy());
  await world.create('web', disks);
  for (const disk of disks) await world.write('web', 0, 6000, disk);
  return world;
}

async function check(t: Test, world: VmWorld, what: string): Promise<void> {
  t.same(digestContents(await world.contents()), digestContents(world.model), what);
  const { findings } =
    world.engine.health === undefined
      ? { findings: [] }
      : await world.service.check({ deep: true, repair: false });
  const damage = findings.filter(({ kind }) => kind === 'damage');
  t.same(damage, [], `${what}: nothing is damaged`);
}

for (const engine of ENGINES) {
  t.test(`write-through, with the ${engine} engine`, async (t) => {
    const world = await open(t, engine, ['root', 'log', 'data']);
    const { service } = world;
    await service.changeKinds('web', [{ disk: 'log', kind: 'write-through' }]);
    const { head } = world.manifest('web').disks[1]!;
    await world.take('web', 'first');
    world.forget('web@first/log');
    await check(t, world, 'it is in no snapshot');
    t.equal(world.manifest('web').disks[1]?.head, head, 'and its head does not move');
    for (const disk of ['root', 'log', 'data']) await world.write('web', 4096, 5000, disk);
    const log = Buffer.from(world.model.get('web/log')!);
    await world.restore('web', 'first');
    world.model.set('web/log', log);
    await check(t, world, 'a restore leaves it as it is');
    const names = world.manifest('web').disks.map(({ name }) => name);
    t.same(names, ['root', 'log', 'data'], 'at the place it had');

    const refused = service.takeSnapshot('web', { name: 'x', memory: true });
    await t.rejects(refused, { code: 'not-supported', message: /"log" is write-through/ });
    const linked = await service.clone({ vm: 'web', name: 'twin', mode: 'linked', hardware: {} });
    t.same(linked.leftOut, ['log'], 'a linked clone does not have it');
    t.same(
      world.manifest('twin').disks.map(({ name }) => name),
      ['root', 'data'],
    );
    await service.clone({ vm: 'web', name: 'copy', mode: 'full', hardware: {} });
    t.match(world.manifest('copy').disks[1], { name: 'log', kind: 'write-through' });
    world.copyModel('web/', 'copy/');
    for (const disk of ['root', 'data']) {
      for (const owner of ['twin', 'web@clone-twin']) {
        world.model.set(`${owner}/${disk}`, world.model.get(`web/${disk}`)!);
      }
    }
    await check(t, world, 'the clones');

    await world.create('logs');
    await service.changeKinds('logs', [{ disk: 'disk0', kind: 'write-through' }]);
    const none = service.clone({ vm: 'logs', name: 'none', mode: 'linked', hardware: {} });
    await t.rejects(none, { code: 'usage', message: /every disk of "logs" is write-through/ });
    t.equal(world.manifest('logs').snapshots.length, 0, 'nothing was taken for it');
  });

  t.test(`immutable, with the ${engine} engine`, async (t) => {
    const world = await open(t, engine, ['disk0']);
    const { service } = world;
    const content = (name: string) => Buffer.from(world.model.get(name)!);
    const start = content('web/disk0');
    await service.changeKinds('web', [{ disk: 'disk0', kind: 'immutable' }]);
    await check(t, world, 'made immutable');
    await world.write('web', 100, 9000);
    const { disks } = world.manifest('web');
    await world.take('web', 'session');
    await world.write('web', 0, 100);
    await service.collectGarbage(false);
    await check(t, world, 'it is written to as any other');

    await service.resetImmutable('web');
    world.model.set('web/disk0', Buffer.from(start));
    await check(t, world, 'the start of the guest');
    t.same(world.hooks.changed.at(-1)?.nodes, [disks[0]?.node], 'the kernel forgets the old');
    const { head } = world.manifest('web').disks[0]!;
    await service.resetImmutable('web');
    t.equal(world.manifest('web').disks[0]?.head, head, 'nothing to do the second time');
    await service.collectGarbage(false);
    await world.restart();
    await check(t, world, 'after a restart');

    await world.restore('web', 'session');
    await check(t, world, 'a restore brings the session back');
    await world.clone('web@session', 'twin', 'linked');
    await world.clone('web@session', 'copy', 'full');
    await check(t, world, 'clones show the snapshot');
    await world.write('twin', 0, 10);
    await world.write('copy', 0, 10);
    for (const vm of ['web', 'twin', 'copy']) await world.service.resetImmutable(vm);
    for (const vm of ['web', 'twin']) world.model.set(`${vm}/disk0`, Buffer.from(start));
    world.model.set('copy/disk0', content('web@session/disk0'));
    await check(t, world, 'a linked clone starts as its source, a full one with what was copied');

    await world.delete('web');
    await world.service.collectGarbage(false);
    await world.write('twin', 0, 10);
    await world.service.resetImmutable('twin');
    world.model.set('twin/disk0', Buffer.from(start));
    await check(t, world, 'without the source');

    await world.write('twin', 0, 10);
    await world.service.changeKinds('twin', [{ disk: 'disk0', kind: 'normal' }]);
    await world.service.resetImmutable('twin');
    await check(t, world, 'normal again: it stays as it is');
  });
}

t.test('no reset below who has just opened the disk', async (t) => {
  const world = await open(t, 'fake', ['disk0']);
  const { hooks, service } = world;
  await service.changeKinds('web', [{ disk: 'disk0', kind: 'immutable' }]);
  await world.write('web', 100, 9000);
  hooks.opens = 1;
  await t.rejects(service.resetImmutable('web'), { code: 'busy', message: /opened just now/ });
  await check(t, world, 'nothing goes back');
  t.equal(hooks.closed.size, 0, 'opened again');
  hooks.opens = 0;
  const seen: number[] = [];
  hooks.contentChanged = async () => void seen.push(hooks.closed.size);
  await service.resetImmutable('web');
  t.same(seen, [1], 'closed until no cache is stale');
  t.equal(hooks.closed.size, 0);
});

t.test('read-only', async (t) => {
  const world = await open(t, 'fake', ['disk0', 'data']);
  await world.service.changeKinds('web', [{ disk: 'data', kind: 'read-only' }]);
  const readOnly = () => world.service.exposure.find('web')?.disks.map((disk) => disk.readOnly);
  t.same(readOnly(), [false, true]);
  await world.take('web', 'first');
  await world.service.changeKinds('web', [{ disk: 'data', kind: 'normal' }]);
  t.same(readOnly(), [false, false]);
  await world.restore('web', 'first');
  t.same(readOnly(), [false, true], 'the kind belongs to the hardware that comes back');
  await check(t, world, 'contents');
});

t.test('made with a kind', async (t) => {
  const world = await VmWorld.create();
  t.teardown(() => world.destroy());
  const kinds = ['normal', 'write-through', 'immutable', 'read-only'] as const;
  await world.service.create(
    'web',
    kinds.map((kind) => ({ name: kind, size: 8192, kind })),
  );
  for (const kind of kinds) world.model.set(`web/${kind}`, Buffer.alloc(8192));
  t.same(
    world.manifest('web').disks.map(({ kind }) => kind),
    [undefined, 'write-through', 'immutable', 'read-only'],
  );
  await world.write('web', 0, 100, 'immutable');
  await world.service.resetImmutable('web');
  world.model.set('web/immutable', Buffer.alloc(8192));
  await check(t, world, 'empty');
});

t.test('refused', async (t) => {
  const world = await open(t, 'fake', ['disk0']);
  const change = (disk: string) => world.service.changeKinds('web', [{ disk, kind: 'immutable' }]);
  t.equal(await codeOf(change('none')), 'not-found');
  const holder = { what: 'process 1 has it open', byPath: false };
  world.hooks.holding.push({ exposed: 'heads', vm: 'web', holder });
  t.equal(await codeOf(change('disk0')), 'busy');
  t.equal(world.manifest('web').disks[0]?.kind, undefined);
});
