/** Garbage: only what nothing reaches is taken, and nothing at all while that can't be known. */
import { existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { DiskError } from '../../src/common/errors.js';
import type { Engine } from '../../src/engine/engine.js';
import { codeOf, digestContents, VmWorld } from '../support/vm-world.js';

async function open(t: Test): Promise<VmWorld> {
  const world = await VmWorld.create();
  t.teardown(() => world.destroy());
  await world.create('web');
  await world.write('web', 0, 8192);
  await world.take('web', 'first');
  return world;
}

/** Waits for what the background does; the time limit of the test run ends a wait in vain. */
async function until(isDone: () => boolean): Promise<void> {
  while (!isDone()) await delay(20);
}

t.test('what nothing reaches', async (t) => {
  const world = await open(t);
  const stray = await world.engine.deltas.create({
    below: { kind: 'none' },
    virtualSize: 4096,
    allocation: 'dynamic',
  });
  world.engine.write(stray, 0, Buffer.alloc(4096, 1));
  const record = `${'0'.repeat(32)}.json`;
  writeFileSync(join(world.store.layout.bases, record), '{}');
  writeFileSync(join(world.store.layout.bases, 'notes.txt'), 'a file of the user');
  await world.create('gone');
  await world.delete('gone');
  const expected = [
    /^trash\/.*-gone\.json$/,
    /^deltas\//,
    /^deltas\//,
    new RegExp(`^bases/${record}$`),
  ];
  const dry = await world.service.collectGarbage(true);
  t.match(dry.files, expected);
  t.equal(dry.files.length, 4);
  t.ok(dry.bytes >= 4096);
  t.same(await world.service.collectGarbage(true), dry, 'a dry run removes nothing');
  t.ok(existsSync(join(world.store.layout.bases, record)));
  t.same((await world.service.collectGarbage(false)).files, dry.files, 'the same for real');
  t.same(await world.service.collectGarbage(true), { files: [], bytes: 0 });
  t.same(readdirSync(world.store.layout.trash), []);
  t.same(readdirSync(world.store.layout.bases), ['notes.txt'], 'not ours: left alone');
  t.same(digestContents(await world.contents()), digestContents(world.model));
});

t.test('what was made and deleted with no collection in between', async (t) => {
  const world = await VmWorld.create('real');
  t.teardown(() => world.destroy());
  await world.create('web');
  await world.write('web', 0, 8192);
  await world.take('web', 'first');
  const clone = { vm: 'web', snapshot: 'first', name: 'clone', mode: 'linked' } as const;
  await world.service.clone({ ...clone, hardware: {} });
  await world.service.delete('clone');
  await world.service.collectGarbage(false);
  t.equal((await world.engine.deltas.list()).length, 2, 'the clone is gone');
  await world.delete('web');
  await world.restart();
  await world.service.collectGarbage(false);
  t.same(await world.engine.deltas.list(), []);
});

t.test('nothing while a delta in use is missing', async (t) => {
  const world = await open(t);
  const sealed = world.manifest('web').snapshots[0]?.disks[0]?.delta ?? '';
  await world.engine.deltas.discard([sealed]);
  await world.create('other');
  await world.delete('other');
  const before = world.fake.ids();
  t.equal(await codeOf(world.service.collectGarbage(false)), 'damaged');
  t.same(world.fake.ids(), before);
});

t.test('nothing beside a manifest that cannot be read', async (t) => {
  const world = await open(t);
  writeFileSync(join(world.store.layout.vms, 'we ird.json'), '{}');
  await world.restart();
  await t.rejects(world.service.collectGarbage(false), {
    code: 'damaged',
    message: /nothing is collected .*vms\/we ird\.json: "we ird" is no valid VM name/,
    hint: /layerdisk check/,
  });
});

t.test('in the background, after changes and at start', async (t) => {
  const world = await open(t);
  await world.create('gone');
  await world.delete('gone');
  world.garbagePace = { restMs: 10, retryMs: 10, trashAgeMs: 3_600_000 };
  await world.restart();
  world.service.start();
  await until(() => world.fake.ids().length === 2);
  t.equal(readdirSync(world.store.layout.trash).length, 1, 'the trash is kept for a while');
  t.same(world.problems, []);

  t.comment('what is still open goes when it is closed');
  await world.create('open');
  const head = world.manifest('open').disks[0]?.head ?? '';
  const volume = await world.engine.volumes.acquire(head, { writable: true });
  await world.delete('open');
  await delay(100);
  t.ok(world.fake.ids().includes(head));
  world.engine.volumes.release(volume);
  await until(() => !world.fake.ids().includes(head));

  t.comment('and so does the record of a base under it');
  await world.import('based', Buffer.alloc(8192, 1), false);
  const top = world.manifest('based').disks[0]?.head ?? '';
  const [base] = world.bases.list();
  const based = await world.engine.volumes.acquire(top, { writable: true });
  await world.delete('based');
  await delay(100);
  t.same(world.bases.list(), [base], 'the base can be looked at as long as the disk is open');
  world.engine.volumes.release(based);
  await until(() => world.bases.list().length === 0);

  t.comment('a failure is told');
  writeFileSync(join(world.store.layout.vms, 'bad.json'), '');
  await world.restart();
  world.service.start();
  await until(() => world.problems.length > 0);
  t.match(world.problems, [{ code: 'damaged', message: /nothing is collected/ }]);
});

t.test('reclaiming lets in who waits, goes on afterwards, and hurries for who asked', async (t) => {
  const world = await open(t);
  const runs: { pressing: boolean | undefined; steps: number }[] = [];
  const ended = new AbortController();
  const engine: Engine = world.engine;
  engine.reclaim = async ({ pressing, isEnough }) => {
    const run = { pressing, steps: 0 };
    runs.push(run);
    const isAsked = pressing === true;
    for (;;) {
      await delay(5);
      run.steps += 1;
      if (isEnough?.() === true) return { bytes: 0, merged: 0, left: true };
      if (ended.signal.aborted || isAsked) return { bytes: 0, merged: 0, left: false };
    }
  };
  world.garbagePace = { restMs: 10, retryMs: 10, trashAgeMs: 3_600_000 };
  await world.restart();
  world.service.start();
  await until(() => runs.length === 1);
  await world.create('gone');
  const head = world.manifest('gone').disks[0]?.head ?? '';
  await world.delete('gone');
  await until(() => !world.fake.ids().includes(head));
  t.pass('what became garbage meanwhile is removed');
  await until(() => runs.length >= 2);
  t.pass('and what was left is taken up again');

  await world.service.collectGarbage(false);
  t.equal(runs.filter(({ pressing }) => pressing === true).length, 1, 'somebody waited');
  ended.abort();
  t.same(world.problems, []);
});

t.test('below a deleted snapshot that somebody still reads nothing is given back', async (t) => {
  const world = await VmWorld.create('real');
  t.teardown(() => world.destroy());
  await world.create('web');
  await world.write('web', 0, 8192);
  await world.take('web', 'first');
  await world.write('web', 4096, 8192);
  await world.take('web', 'second');
  const { delta } = world.manifest('web').snapshots[1]!.disks[0]!;
  const { volumes } = world.engine;
  const shown = await world.engine.readAll(delta, false);
  await world.restore('web', 'first');
  await world.write('web', 0, 8192);
  await volumes.flush(world.manifest('web').disks[0]!.head);
  const reader = await volumes.acquire(delta, { writable: false });
  await world.deleteSnapshot('web', 'second');
  await world.deleteSnapshot('web', 'first');
  await world.service.collectGarbage(false);
  t.ok((await world.engine.readAll(delta, false)).equals(shown), 'it shows what it did');
  volumes.release(reader);
  await world.restart();
  const before = await storedBytes(world);
  await world.service.collectGarbage(false);
  t.ok((await storedBytes(world)) < before, 'afterwards it is');
});

async function storedBytes(world: VmWorld): Promise<number> {
  const ids = await world.engine.deltas.list();
  return ids.reduce((sum, id) => sum + world.engine.deltas.describe(id).storedSize, 0);
}

t.test('what an operation that fails takes back meanwhile is not missed', async (t) => {
  const world = await VmWorld.create('real');
  t.teardown(() => world.destroy());
  await world.create('web');
  const { deltas, volumes } = world.engine;
  let isCopying = false;
  let isFailing = false;
  const copy = async () => {
    isCopying = true;
    await until(() => isFailing);
    throw new DiskError('failed', 'the copy failed');
  };
  Object.assign(volumes, { copy });
  const cloning = codeOf(world.clone('web', 'twin', 'full'));
  await until(() => isCopying);
  const list = deltas.list.bind(deltas);
  const slowList = async () => {
    const ids = await list();
    isFailing = true;
    await delay(100);
    return ids;
  };
  Object.assign(deltas, { list: slowList });
  t.equal(await codeOf(world.service.collectGarbage(false)), 'ok');
  t.equal(await cloning, 'failed');
  Object.assign(deltas, { list });
  await world.service.collectGarbage(false);
  t.same((await world.service.collectGarbage(true)).files, []);
});

t.test('trash from what is the future since the clock was set back', async (t) => {
  const { store } = await open(t);
  const path = join(store.layout.root, 'some.json');
  writeFileSync(path, 'x');
  store.trash.put(path, 'test.trash');
  const longAgo = 0;
  const now = Date.now();
  const clock = Date.now;
  const set = (time: number) => Object.assign(Date, { now: () => time });
  t.teardown(() => Object.assign(Date, { now: clock }));
  const halfAnHour = 1_800_000;
  set(now - halfAnHour);
  t.same(await store.trash.empty(longAgo), [], "a network file system's clock may differ so much");
  set(now - 4 * halfAnHour);
  t.match(await store.trash.empty(longAgo), [{ name: /-some\.json$/ }]);
  t.same(await store.trash.list(), []);
});

t.test('a store that was found without VMs', async (t) => {
  const world = await open(t);
  world.garbagePace = { restMs: 1, retryMs: 10, trashAgeMs: 0 };
  const { vms } = world.store.layout;
  const deltas = await world.engine.deltas.list();
  for (const name of readdirSync(vms)) rmSync(join(vms, name));
  world.model.clear();
  await world.restart();
  world.service.start();
  await until(() => world.problems.length > 0);
  t.match(world.problems, [{ code: 'damaged', message: /no VM in .*, but 2 deltas/ }]);
  world.service.makeRoom();
  await delay(100);
  t.same(await world.engine.deltas.list(), deltas, 'nothing is taken for garbage by itself');
  await world.service.collectGarbage(false);
  t.same(await world.engine.deltas.list(), [], 'but when somebody says so');
});
