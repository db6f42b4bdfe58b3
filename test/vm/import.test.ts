/** Foreign images as bases: referenced and never written, or copied; refused when they change. */
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { mkdir, rename, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { codeOf, digestContents, ENGINES, type EngineKind, VmWorld } from '../support/vm-world.js';

const content = Buffer.alloc(20480, 'the base image ');
const auto = { format: 'auto' };

async function check(t: Test, world: VmWorld): Promise<void> {
  t.same(digestContents(await world.contents()), digestContents(world.model), 'every byte');
}

async function open(t: Test, engine: EngineKind = 'fake'): Promise<VmWorld> {
  const world = await VmWorld.create(engine);
  t.teardown(() => world.destroy());
  return world;
}

for (const engine of ENGINES) {
  t.test(`referenced: never written, shared by clones (${engine} engine)`, async (t) => {
    const world = await open(t, engine);
    const path = await world.import('web', content, false);
    const { mtimeMs } = statSync(path);
    await world.write('web', 1000, 5000);
    await world.take('web', 'first');
    await world.clone('web@first', 'twin', 'linked');
    await world.write('twin', 0, 4096);
    await check(t, world);
    t.ok(readFileSync(path).equals(content));
    t.equal(statSync(path).mtimeMs, mtimeMs);
    await world.clone('twin', 'alone', 'full');
    await world.delete('web');
    await world.delete('twin');
    // A disk stays open for a while after its last use, and its base's record with it.
    await world.restart();
    await world.service.collectGarbage(false);
    t.same(
      readdirSync(world.store.layout.bases),
      [],
      'the record goes with the last that needs it',
    );
    await check(t, world);
  });
}

for (const engine of ENGINES) {
  t.test(`copied: the file is not needed any more (${engine} engine)`, async (t) => {
    const world = await open(t, engine);
    const path = await world.import('web', content, true);
    writeFileSync(path, 'something else');
    await check(t, world);
    t.same(readdirSync(world.store.layout.bases), []);
    if (engine === 'fake') t.equal(world.fake.ids().length, 1);
  });
}

for (const engine of ENGINES) {
  t.test(`several images are several disks (${engine} engine)`, async (t) => {
    const world = await open(t, engine);
    const images = [
      { path: await world.rawFile('a.img', Buffer.alloc(4096, 'a')), options: auto },
      { path: await world.rawFile('b.img', Buffer.alloc(8192, 'b')), options: auto },
    ];
    for (const copy of [false, true]) {
      const vm = `vm-${copy}`;
      await world.service.importImages(vm, images, { copy });
      world.model.set(`${vm}/disk0`, Buffer.alloc(4096, 'a'));
      world.model.set(`${vm}/disk1`, Buffer.alloc(8192, 'b'));
    }
    await check(t, world);
  });
}

for (const engine of ENGINES) {
  t.test(
    `a base that changed is refused by name until it is accepted (${engine} engine)`,
    async (t) => {
      const world = await open(t, engine);
      const path = await world.import('web', content, false);
      await world.take('web', 'first');
      await world.clone('web@first', 'twin', 'linked');
      const head = world.manifest('twin').disks[0]?.head ?? '';
      t.equal(await codeOf(world.engine.volumes.acquire(head, { writable: true })), 'ok');
      const changed = Buffer.alloc(20480, 'other');
      writeFileSync(path, changed);
      await world.restart();
      await t.rejects(world.engine.volumes.acquire(head, { writable: true }), {
        code: 'damaged',
        message: new RegExp(`the base image ${path} is not what it was`),
        hint: /layerdisk base accept web/,
      });
      t.equal(await codeOf(world.service.acceptBases('none')), 'not-found');
      t.same(await world.service.acceptBases('twin'), [path]);
      t.same(await world.service.acceptBases('web'), [], 'once for all that stand on it');
      for (const name of world.model.keys()) world.model.set(name, changed);
      await check(t, world);
    },
  );
}

t.test('copied: nobody looks after the image any more', async (t) => {
  const world = await open(t, 'real');
  await world.import('web', content, true);
  t.same(readdirSync(world.store.layout.bases), [], 'its record is gone');
  t.equal(world.real.volumes.openCount, 0, 'and no disk that stands on it is still open');
  t.same((await world.service.collectGarbage(true)).files.filter(isNoTrash), []);
});

function isNoTrash(file: string): boolean {
  return !file.startsWith('trash/');
}

t.test('an image that is accepted is what all its disks show from then on', async (t) => {
  const world = await open(t, 'real');
  const path = await world.import('web', content, false);
  await world.take('web', 'first');
  await world.clone('web@first', 'twin', 'linked');
  await world.clone('web@first', 'other', 'linked');
  // They stay open for some more seconds.
  await check(t, world);
  const changed = Buffer.alloc(20480, 'other');
  await rename(await world.rawFile('new.img', changed), path);
  const holder = { what: 'in use by a test', byPath: false };
  world.hooks.holding.push({ exposed: 'heads', vm: 'other', holder });
  await t.rejects(world.service.acceptBases('twin'), { code: 'busy', message: /by a test/ });
  world.hooks.holding.pop();
  const { disks } = world.manifest('web').snapshots[0]!;
  await t.rejects(world.engine.readAll(disks[0]!.delta, false), { code: 'damaged' });
  const [base] = world.bases.list();
  const { contentChanged } = world.hooks;
  world.hooks.contentChanged = async (...content) => {
    t.ok(await world.bases.hasChanged(base!), 'not accepted before the caches are empty');
    await contentChanged.apply(world.hooks, content);
  };
  t.same(await world.service.acceptBases('twin'), [path]);
  for (const name of world.model.keys()) world.model.set(name, changed);
  await check(t, world);
  const numbers = world.service.list().map(({ number }) => number);
  t.same(world.hooks.changed.map(({ vmNumber }) => vmNumber).sort(), numbers.sort());
});

t.test('an image under a disk that is open is not accepted', async (t) => {
  const world = await open(t, 'real');
  const path = await world.import('web', content, false);
  const open1 = await world.engine.volumes.acquire(headOf(world, 'web'), { writable: true });
  await rename(await world.rawFile('new.img', Buffer.alloc(20480, 'other')), path);
  await t.rejects(world.service.acceptBases('web'), { code: 'busy' });
  world.engine.volumes.release(open1);
  t.same(await world.service.acceptBases('web'), [path]);
});

t.test('an image that changed under one disk that is open is refused to others', async (t) => {
  const world = await open(t, 'real');
  const path = await world.import('web', content, false);
  await world.take('web', 'first');
  await world.clone('web@first', 'twin', 'linked');
  await world.restart();
  const { volumes } = world.engine;
  const user = await volumes.acquire(headOf(world, 'web'), { writable: true });
  writeFileSync(path, Buffer.alloc(20480, 'other'));
  const twin = () => volumes.acquire(headOf(world, 'twin'), { writable: true });
  await t.rejects(twin(), { code: 'damaged' });
  const { delta } = world.manifest('web').snapshots[0]!.disks[0]!;
  await t.rejects(volumes.acquire(delta, { writable: false }), { code: 'damaged' });
  volumes.release(user);
});

function headOf(world: VmWorld, vm: string): string {
  return world.manifest(vm).disks[0]?.head ?? '';
}

t.test('what is no base', async (t) => {
  const world = await open(t);
  await mkdir(world.mountpoint);
  const store = join(world.store.layout.deltas, 'x');
  writeFileSync(store, content);
  const link = join(world.folder, 'link.img');
  await symlink(store, link);
  const empty = await world.rawFile('empty.img', Buffer.alloc(0));
  const odd = await world.rawFile('odd.img', Buffer.alloc(1000));
  const bad: [path: string, code: string][] = [
    [join(world.folder, 'none.img'), 'not-found'],
    [join(world.mountpoint, 'web', 'disk0.raw'), 'usage'],
    [store, 'usage'],
    [link, 'usage'],
    [empty, 'usage'],
    [odd, 'usage'],
  ];
  const before = world.fake.ids().length;
  for (const [path, code] of bad) {
    for (const copy of [false, true]) {
      const attempt = world.service.importImages('web', [{ path, options: auto }], { copy });
      t.equal(await codeOf(attempt), code, path);
    }
  }
  t.equal(await codeOf(world.service.importImages('web', [])), 'usage', 'no image');
  t.equal(world.fake.ids().length, before, 'nothing is left of the attempts');
  t.same(readdirSync(world.store.layout.bases), []);
  t.notOk(world.service.has('web'));
});
