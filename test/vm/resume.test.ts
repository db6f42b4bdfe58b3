/**
 * Snapshots with the memory of a guest: it is given out with exactly the disks and the hardware
 * that it belongs to, once, and its file stays as long as a manifest names it.
 */
import { readdir, readFile, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { GUEST_SETUP } from '../support/fake-hooks.js';
import { codeOf, DISK_SIZE, ENGINES, VmWorld } from '../support/vm-world.js';

async function files(world: VmWorld): Promise<string[]> {
  return readdir(world.store.layout.memory);
}

async function collect(world: VmWorld): Promise<void> {
  await world.service.collectGarbage(false);
}

/** `web@running` has the memory "memory..."; written to since, and stopped. */
async function open(t: Test, kind: (typeof ENGINES)[number] = 'fake'): Promise<VmWorld> {
  const world = await VmWorld.create(kind);
  t.teardown(() => world.destroy());
  await world.create('web', ['disk0', 'data']);
  await world.write('web', 0, 4096);
  await world.take('web', 'cold');
  await world.write('web', 4096, 4096, 'data');
  await world.take('web', 'running', true);
  await world.write('web', 0, 4096);
  return world;
}

for (const engine of ENGINES) {
  t.test(`what makes memory unusable, with the ${engine} engine`, async (t) => {
    const world = await open(t, engine);
    const { service } = world;
    t.equal(await service.usableMemory('web'), undefined, 'nothing waits before a restore');

    await world.restore('web', 'running');
    const usable = await service.usableMemory('web');
    t.match(usable, { snapshot: 'running', state: { size: 10_000, setup: GUEST_SETUP } });
    t.same(await readFile(usable?.path ?? ''), world.hooks.guestMemory, 'every byte of it');

    await service.takeSnapshot('web', { name: 'later' });
    await service.clone({ vm: 'web', name: 'copy', mode: 'full', hardware: {} });
    t.same(await service.usableMemory('web'), usable, 'new heads that nobody wrote to');
    await world.restart();
    t.same(await world.service.usableMemory('web'), usable, 'after a restart');

    await world.write('web', 8192, 1, 'data');
    t.equal(await codeOf(world.service.usableMemory('web')), 'exists', 'one byte is enough');
    t.equal(await codeOf(world.service.useMemory('web')), 'exists');
    await world.service.takeSnapshot('web', { name: 'sealed' });
    t.equal(await codeOf(world.service.usableMemory('web')), 'exists', 'sealed or not');
    await world.restart();
    t.equal(await codeOf(world.service.usableMemory('web')), 'exists', 'after a restart, too');

    await world.restore('web', 'running');
    t.same((await world.service.usableMemory('web'))?.state, usable?.state, 'restored again');
    await world.restore('web', 'cold');
    t.equal(await world.service.usableMemory('web'), undefined, 'another snapshot: none');
    await world.restore('web', 'later');
    t.equal(await world.service.usableMemory('web'), undefined, 'one that was taken without');
  });
}

t.test('it is used once', async (t) => {
  const world = await open(t);
  await world.restore('web', 'running');
  await world.service.useMemory('web');
  t.equal(await world.service.usableMemory('web'), undefined);
  t.equal(await codeOf(world.service.useMemory('web')), 'exists');
  await world.restore('web', 'running');
  t.ok(await world.service.usableMemory('web'), 'the snapshot keeps it');
  await world.service.discardMemory('web');
  t.equal(await world.service.usableMemory('web'), undefined);
  await world.service.discardMemory('web');
});

t.test('other hardware', async (t) => {
  const world = await open(t);
  await world.restore('web', 'running');
  await world.service.setHardware('web', { vcpus: 2 });
  await t.rejects(world.service.usableMemory('web'), { code: 'exists', message: /hardware/ });
  await world.service.setHardware('web', { vcpus: 1 });
  t.ok(await world.service.usableMemory('web'));
});

t.test('disks of another size, or others', async (t) => {
  const world = await open(t);
  await world.restore('web', 'running');
  const usable = await world.service.usableMemory('web');
  const refused = { code: 'exists', message: /"data" has another size now/ };
  await world.resize('web', 2 * DISK_SIZE, 'data');
  await t.rejects(world.service.usableMemory('web'), refused, 'larger');
  await t.rejects(world.service.useMemory('web'), refused);
  await world.resize('web', DISK_SIZE, 'data');
  t.same(await world.service.usableMemory('web'), usable, 'as it was');
  await world.resize('web', 4096, 'data');
  await t.rejects(world.service.usableMemory('web'), refused, 'smaller');
  await world.restore('web', 'running');
  await world.removeDisk('web', 'data');
  const others = { code: 'exists', message: /other disks/ };
  await t.rejects(world.service.usableMemory('web'), others, 'one less');
  await world.addDisk('web', 'data');
  t.equal(await codeOf(world.service.usableMemory('web')), 'exists', 'another one of that name');
});

t.test('without a guest there is no snapshot', async (t) => {
  const world = await open(t);
  world.hooks.guestMemory = undefined;
  t.equal(
    await codeOf(world.service.takeSnapshot('web', { name: 'x', memory: true })),
    'not-found',
  );
  t.equal(world.manifest('web').snapshots.length, 2);
  t.equal((await files(world)).length, 1);
});

t.test('clones start cold', async (t) => {
  const world = await open(t);
  await world.clone('web@running', 'twin', 'linked');
  t.equal(await world.service.usableMemory('twin'), undefined);
  t.equal(world.manifest('twin').resume, undefined);
});

t.test('how long the file stays', async (t) => {
  const world = await open(t);
  const [file = ''] = await files(world);
  const { mode } = await stat(`${world.store.layout.memory}/${file}`);
  t.equal(mode & 0o077, 0, 'nobody else may read what was in a memory');
  await world.restore('web', 'running');
  await world.deleteSnapshot('web', 'running');
  await collect(world);
  t.same(await files(world), [file], 'the next run needs it, although its snapshot is gone');
  t.ok(await world.service.usableMemory('web'));
  await world.service.useMemory('web');
  const dry = await world.service.collectGarbage(true);
  t.ok(dry.files.includes(`memory/${file}`), 'gc --dry-run names it');
  t.ok(dry.bytes >= 10_000, 'and counts it');
  await collect(world);
  t.same(await files(world), []);
});

t.test('damage is found, and never given to a guest', async (t) => {
  const world = await open(t, 'real');
  await world.restore('web', 'running');
  const { path } = (await world.service.usableMemory('web'))!;
  const check = async (deep: boolean) =>
    (await world.service.check({ deep, repair: false })).findings.map(
      ({ kind, part, seenBy }) => `${kind} ${part} ${seenBy.join(' ')}`,
    );
  t.same(await check(true), [], 'whole');
  const bytes = await readFile(path);
  bytes[5000]! ^= 1;
  await writeFile(path, bytes);
  t.same(await check(false), [], 'a changed bit is only found by reading');
  t.same(await check(true), ['damage memory web@running web']);
  await truncate(path, 9999);
  t.same(await check(false), ['damage memory web@running web']);
  t.equal(await codeOf(world.service.usableMemory('web')), 'damaged');
  await world.service.discardMemory('web');
  await world.deleteSnapshot('web', 'running');
  await world.service.collectGarbage(false);
  t.same(await check(true), []);
  const stray = `memory/${'0'.repeat(32)}.state`;
  await writeFile(join(world.store.layout.root, stray), 'leak');
  await world.restart();
  await world.service.collectGarbage(false);
  await writeFile(join(world.store.layout.root, stray), 'leak');
  const { findings } = await world.service.check({ deep: false, repair: false });
  t.match(findings, [{ kind: 'leak', file: stray }], 'what nobody names is a leak');
  t.equal(findings.length, 1);
});
