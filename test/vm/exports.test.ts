/**
 * Exports as the VM side sees them: one instant, kept while it is written, and let go afterwards.
 */
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { DiskError } from '../../src/common/errors.js';
import { fileId } from '../../src/storage/file-id.js';
import type { ExportRequest } from '../../src/vm/exchange/exports.js';
import { codeOf, DISK_SIZE, VmWorld } from '../support/vm-world.js';

async function open(t: Test): Promise<VmWorld> {
  const world = await VmWorld.create('fake');
  t.teardown(() => world.destroy());
  await world.create('web');
  await world.write('web', 0, 9000);
  return world;
}

function requestOf(world: VmWorld, name: string, change: Partial<ExportRequest> = {}) {
  return {
    vm: 'web',
    disk: 'disk0',
    path: join(world.folder, name),
    format: 'qcow2',
    subformat: 'plain',
    differencing: false,
    overwrite: false,
    ...change,
  };
}

t.test('the instant stays, whatever becomes of the VM', async (t) => {
  const world = await open(t);
  const top = world.manifest('web').disks[0]!.head;
  const before = Buffer.from(world.model.get('web/disk0')!);
  world.duringExport = async () => {
    await world.write('web', 0, 500);
    await world.delete('web');
    await world.service.collectGarbage(false);
    t.ok((await world.engine.readAll(top, false)).equals(before), 'every byte');
  };
  await world.service.export(requestOf(world, 'x.qcow2'));
  t.match(world.exports, [{ path: join(realpathSync(world.folder), 'x.qcow2'), spared: [] }]);
  await world.service.collectGarbage(false);
  t.same(world.fake.ids(), [], 'and goes when the export is done');
});

t.test('an export that fails holds nothing', async (t) => {
  const world = await open(t);
  await world.take('web', 'one');
  world.duringExport = async () => {
    throw new DiskError('interrupted', 'cancelled');
  };
  const request = requestOf(world, 'x.qcow2');
  t.equal(await codeOf(world.service.export(request)), 'interrupted');
  t.equal(await codeOf(world.service.export({ ...request, snapshot: 'one' })), 'interrupted');
  world.faults.arm(0);
  t.equal(await codeOf(world.service.export({ ...request, snapshot: 'one' })), 'failed');
  t.same(world.faults.steps, ['volume.acquire']);
  world.faults.record();
  await world.delete('web');
  await world.service.collectGarbage(false);
  t.same(world.fake.ids(), [], 'nothing is kept');
});

t.test('an OVA that fails holds nothing, not even a VM that was deleted meanwhile', async (t) => {
  const world = await open(t);
  await world.take('web', 'one');
  const place = join(world.folder, 'out');
  mkdirSync(place);
  const request = { vm: 'web', path: join(place, 'web.ova'), overwrite: false };
  let begun = 0;
  world.duringExport = async () => {
    begun += 1;
    t.notOk(readdirSync(place).includes('web.ova'), 'it has no name yet');
    throw new DiskError('interrupted', 'cancelled');
  };
  t.equal(await codeOf(world.service.exportOva({ ...request, snapshot: 'one' })), 'interrupted');
  t.equal(begun, 1, 'the archive was under way');
  world.duringExport = async () => {
    await world.delete('web');
    throw new DiskError('interrupted', 'cancelled');
  };
  t.equal(await codeOf(world.service.exportOva(request)), 'interrupted');
  t.same(readdirSync(place), [], 'nothing is left behind');
  await world.service.collectGarbage(false);
  t.same(world.fake.ids(), [], 'nothing is kept');
});

t.test('a name that is taken while the disks of an OVA are sealed', async (t) => {
  const world = await open(t);
  const path = join(world.folder, 'web.ova');
  const { flushExposed } = world.hooks;
  world.hooks.flushExposed = async (...request) => {
    writeFileSync(path, 'theirs');
    return flushExposed.apply(world.hooks, request);
  };
  const request = { vm: 'web', path, overwrite: false };
  t.equal(await codeOf(world.service.exportOva(request)), 'exists');
  t.equal(readFileSync(path, 'utf8'), 'theirs');
  await world.delete('web');
  await world.service.collectGarbage(false);
  t.same(world.fake.ids(), [], 'nothing is kept');
});

t.test('what is refused seals nothing', async (t) => {
  const world = await open(t);
  const head = world.manifest('web').disks[0]!.head;
  const { layout } = world.store;
  symlinkSync(layout.root, join(world.folder, 'link'));
  symlinkSync(layout.identity, join(world.folder, 'link.raw'));
  const refusals: readonly (readonly [string, Partial<ExportRequest>])[] = [
    ['usage', { path: join(world.folder, 'link', 'x.raw') }],
    ['usage', { path: join(world.folder, 'link.raw'), overwrite: true }],
    ['not-found', { disk: 'disk1' }],
    ['not-found', { snapshot: 'nosuch' }],
    ['not-found', { path: join(world.folder, 'nosuch', 'x.raw') }],
    ['usage', { differencing: true }],
    ['usage', { path: join(world.mountpoint, 'x.raw') }],
    ['usage', { path: world.folder }],
  ];
  for (const [code, change] of refusals) {
    t.equal(await codeOf(world.service.export(requestOf(world, 'x.raw', change))), code);
  }
  t.equal(world.manifest('web').disks[0]!.head, head);
  t.same(world.exports, []);
});

t.test('the base: named for the child, spared from being replaced', async (t) => {
  const world = await open(t);
  const base = realpathSync(await world.import('home', Buffer.alloc(DISK_SIZE, 7), false));
  mkdirSync(join(world.folder, 'deep'));
  const child = { vm: 'home', differencing: true };
  await world.service.export(requestOf(world, 'deep/child.qcow2', child));
  t.match(world.exports.at(-1)?.parent, {
    name: '../home.img',
    base: { images: [{ path: base }], virtualSize: DISK_SIZE },
  });
  const forced = requestOf(world, 'home.img', { overwrite: true });
  t.equal(await codeOf(world.service.export(forced)), 'exists');
  await world.service.export({ ...forced, path: join(world.folder, 'new.img') });
  t.same(world.exports.at(-1)?.spared, [fileId(base)]);
});
