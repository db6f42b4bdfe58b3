/**
 * The methods about VMs as a client meets them: what they answer, and the exact code of every
 * refusal.
 */
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { MethodName } from '../../../src/control/protocol.js';
import { type VmMethod, vmHandlers } from '../../../src/daemon/handlers/vm-handlers.js';
import { type Calls, callable } from '../../support/handler-calls.js';
import { noGuests } from '../../support/no-guests.js';
import { codeOf, VmWorld } from '../../support/vm-world.js';

interface Setting {
  readonly world: VmWorld;
  readonly calls: Calls<VmMethod>;
}

/**
 * `web` with disks disk0 and data, snapshots first -- second; `twin` is a linked clone of first.
 */
async function open(t: Test): Promise<Setting> {
  const world = await VmWorld.create();
  t.teardown(() => world.destroy());
  const calls = callable(
    vmHandlers({
      service: world.service,
      mountpoint: world.mountpoint,
      isOpen: (top) => world.engine.volumes.isOpen(top),
      storedSize: (id) => world.engine.deltas.describe(id).storedSize,
      guests: noGuests(world),
    }),
  );
  await world.create('web', ['disk0', 'data']);
  await world.write('web', 0, 4096);
  await world.take('web', 'first');
  await world.take('web', 'second');
  await world.clone('web@first', 'twin', 'linked');
  return { world, calls };
}

t.test('views', async (t) => {
  const { world, calls } = await open(t);
  const list = await calls.list({});
  t.match(list, [
    { name: 'twin', disks: 2, snapshots: 0, size: 65536 },
    { name: 'web', disks: 2, snapshots: 2, size: 65536, vcpus: 1, nics: 0 },
  ]);
  const info = await calls.info({ vm: 'web' });
  const file = join(world.mountpoint, 'web', 'disk0.raw');
  t.match(info, {
    name: 'web',
    disks: [
      {
        name: 'disk0',
        size: 32768,
        depth: 3,
        headBytes: 0,
        chainBytes: 4096,
        path: file,
        open: false,
      },
      { name: 'data', allocation: 'dynamic' },
    ],
    snapshots: [
      { name: 'first', current: false, consistency: 'consistent' },
      { name: 'second', parent: 'first', current: true },
    ],
  });
  t.notOk('origin' in info);
  t.equal((await calls.info({ vm: 'twin' })).origin, 'web@first');
  t.same(await calls['snapshot.list']({ vm: 'web' }), info.snapshots);
  t.same(await calls.path({ vm: 'web' }), { path: file });
  t.same(await calls.path({ vm: 'web', snapshot: 'first', disk: 'data' }), {
    path: join(world.mountpoint, 'web', 'snapshots', 'first', 'data.raw'),
  });
  const [tree] = await calls.tree({ vm: 'web' });
  t.match(tree, {
    kind: 'vm',
    name: 'web',
    children: [
      {
        kind: 'snapshot',
        name: 'first',
        clones: ['twin'],
        children: [{ name: 'second', children: [{ kind: 'current', children: [] }] }],
      },
    ],
  });
  t.same(
    (await calls.tree({})).map((each) => each.name),
    ['twin', 'web'],
  );
});

t.test('an import, its base, and its origin after changes', async (t) => {
  const { world, calls } = await open(t);
  const path = await world.rawFile('base.img', Buffer.alloc(8192, 1));
  const view = await calls.import({ files: [path], vm: 'foreign', vcpus: 2 });
  t.match(view, {
    vcpus: 2,
    disks: [{ size: 8192, depth: 1, base: { path, format: 'raw', virtualSize: 8192 } }],
  });
  t.same(await calls['base.accept']({ vm: 'foreign' }), { accepted: [] });
  const taken = await calls['snapshot.rename']({ vm: 'web', snapshot: 'first', name: 'one' });
  t.equal(taken.name, 'one');
  await calls.rename({ vm: 'web', name: 'site' });
  t.equal((await calls.info({ vm: 'twin' })).origin, 'site@one', 'by the names of today');
  t.same(await calls.delete({ vm: 'site' }), { kept: 2 });
  t.equal((await calls.info({ vm: 'twin' })).origin, 'web@first', 'gone: by those of then');
});

t.test('restore, clone and gc', async (t) => {
  const { calls } = await open(t);
  const { restored, saved } = await calls['snapshot.restore']({
    vm: 'web',
    snapshot: 'first',
    saveCurrent: 'kept',
  });
  t.match(restored, { name: 'first', current: true });
  t.match(saved, { name: 'kept', parent: 'second', current: false });
  const progress: string[] = [];
  const { vm, tookSnapshot } = await calls.clone(
    { vm: 'web', name: 'new', mode: 'full', memory: 2 ** 31 },
    { progress: (what, done, total) => progress.push(`${what} ${done <= total}`) },
  );
  t.match(vm, { name: 'new', memory: 2 ** 31 });
  t.equal(tookSnapshot, undefined);
  t.equal(progress[0], 'copying web true');
  t.match(await calls.clone({ vm: 'web', name: 'linked', mode: 'linked' }), {
    tookSnapshot: 'clone-linked',
    vm: { origin: 'web@clone-linked' },
  });
  const { files } = await calls.gc({ dryRun: true });
  t.match(await calls.gc({}), { dryRun: false, files });
  t.same(await calls.gc({ dryRun: true }), { dryRun: true, files: [], bytes: 0 });
});

t.test('a clone keeps the serials of disks, of one that was removed since, too', async (t) => {
  const { world, calls } = await open(t);
  const serialsOf = (vm: string) => calls.info({ vm }).then(({ disks }) => serials(disks));
  const serials = (all: readonly { name: string; serial: string }[]) =>
    Object.fromEntries(all.map(({ name, serial }) => [name, serial]));
  const before = await serialsOf('web');
  await world.removeDisk('web', 'data');
  await calls['disk.add']({ vm: 'web', disk: { name: 'later', size: 4096 } });
  const how = { mode: 'linked', serials: 'keep' } as const;
  await calls.clone({ vm: 'web', snapshot: 'first', name: 'like-then', ...how });
  t.same(await serialsOf('like-then'), before);
  t.same(world.manifest('like-then').serials, before, 'and no others');
  await calls.clone({ vm: 'web', name: 'like-now', ...how });
  t.same(await serialsOf('like-now'), await serialsOf('web'));
});

const long = 'n'.repeat(65);
const disks = [{ size: 4096 }];

/**
 * Every refusal with its code. Shapes are the control server's business; these are about what they
 * mean.
 */
const refused: readonly (readonly [method: VmMethod, params: object, code: string])[] = [
  ['create', { vm: 'web', disks }, 'exists'],
  ['create', { vm: '', disks }, 'usage'],
  ['create', { vm: '.', disks }, 'usage'],
  ['create', { vm: '..', disks }, 'usage'],
  ['create', { vm: 'a/b', disks }, 'usage'],
  ['create', { vm: 'a b', disks }, 'usage'],
  ['create', { vm: 'ä', disks }, 'usage'],
  ['create', { vm: 'a\n', disks }, 'usage'],
  ['create', { vm: 'a\0', disks }, 'usage'],
  ['create', { vm: '-a', disks }, 'usage'],
  ['create', { vm: long, disks }, 'usage'],
  ['create', { vm: 'a', disks: [] }, 'usage'],
  ['create', { vm: 'a', disks: [{ size: 0 }] }, 'usage'],
  ['create', { vm: 'a', disks: [{ size: -512 }] }, 'usage'],
  ['create', { vm: 'a', disks: [{ size: 511 }] }, 'usage'],
  ['create', { vm: 'a', disks: [{ size: 1000 }] }, 'usage'],
  ['create', { vm: 'a', disks: [{ size: 2 ** 46 + 512 }] }, 'usage'],
  ['create', { vm: 'a', disks: [{ size: Number.NaN }] }, 'usage'],
  ['create', { vm: 'a', disks: [{ size: 4096, name: '../x' }] }, 'usage'],
  ['create', { vm: 'a', disks: [disks[0], { size: 4096, name: 'disk0' }] }, 'usage'],
  ['create', { vm: 'a', disks: Array.from({ length: 65 }, () => disks[0]) }, 'usage'],
  ['create', { vm: 'a', disks, vcpus: 0 }, 'usage'],
  ['create', { vm: 'a', disks, memory: 1 }, 'usage'],
  ['create', { vm: 'a', disks, nics: [{ mode: 'nat', mac: 'zz' }] }, 'usage'],
  ['create', { vm: 'a', disks, nics: [{ mode: 'nat', network: '' }] }, 'usage'],
  ['import', { vm: 'a', files: ['relative.img'] }, 'usage'],
  ['import', { vm: 'a', files: [] }, 'usage'],
  ['import', { vm: 'a', files: ['/nowhere/x.img'] }, 'not-found'],
  ['import', { vm: 'web', files: ['/nowhere/x.img'] }, 'exists'],
  ['import', { vm: 'a', files: ['/a', '/b'], parent: '/c' }, 'usage'],
  ['import', { vm: 'a', files: ['/a'], allowFolders: ['b'] }, 'usage'],
  ['info', { vm: 'none' }, 'not-found'],
  ['tree', { vm: 'none' }, 'not-found'],
  ['rename', { vm: 'none', name: 'a' }, 'not-found'],
  ['rename', { vm: 'web', name: 'twin' }, 'exists'],
  ['rename', { vm: 'web', name: 'web' }, 'exists'],
  ['rename', { vm: 'web', name: '../a' }, 'usage'],
  ['delete', { vm: 'none' }, 'not-found'],
  ['set', { vm: 'none', vcpus: 1 }, 'not-found'],
  ['set', { vm: 'web', vcpus: 5000 }, 'usage'],
  ['set', { vm: 'web', vcpus: 5000, diskKinds: [{ disk: 'data', kind: 'read-only' }] }, 'usage'],
  ['set', { vm: 'web', vcpus: 2, diskKinds: [{ disk: 'none', kind: 'normal' }] }, 'not-found'],
  [
    'set',
    {
      vm: 'web',
      diskKinds: [
        { disk: 'data', kind: 'read-only' },
        { disk: 'data', kind: 'normal' },
      ],
    },
    'usage',
  ],
  ['set', { vm: 'web', diskKinds: [{ kind: 'immutable' }, { kind: 'immutable' }] }, 'usage'],
  ['path', { vm: 'web', snapshot: 'none' }, 'not-found'],
  ['path', { vm: 'web', disk: 'none' }, 'not-found'],
  ['base.accept', { vm: 'none' }, 'not-found'],
  ['snapshot.take', { vm: 'none', snapshot: 'a' }, 'not-found'],
  ['snapshot.take', { vm: 'web', snapshot: 'first' }, 'exists'],
  ['snapshot.take', { vm: 'web', snapshot: 'a/b' }, 'usage'],
  ['snapshot.take', { vm: 'web', snapshot: long }, 'usage'],
  ['snapshot.take', { vm: 'web', snapshot: 'a', message: 'x'.repeat(5000) }, 'usage'],
  ['snapshot.list', { vm: 'none' }, 'not-found'],
  ['snapshot.delete', { vm: 'web', snapshot: 'none' }, 'not-found'],
  ['snapshot.rename', { vm: 'web', snapshot: 'none', name: 'a' }, 'not-found'],
  ['snapshot.rename', { vm: 'web', snapshot: 'first', name: 'second' }, 'exists'],
  ['snapshot.rename', { vm: 'web', snapshot: 'first', name: 'first' }, 'exists'],
  ['snapshot.rename', { vm: 'web', snapshot: 'first', name: '' }, 'usage'],
  ['snapshot.restore', { vm: 'web', snapshot: 'first' }, 'usage'],
  ['snapshot.restore', { vm: 'web', snapshot: 'none', discard: true }, 'not-found'],
  ['snapshot.restore', { vm: 'none', snapshot: 'first', discard: true }, 'not-found'],
  ['clone', { vm: 'none', name: 'a', mode: 'full' }, 'not-found'],
  ['clone', { vm: 'web', snapshot: 'none', name: 'a', mode: 'linked' }, 'not-found'],
  ['clone', { vm: 'web', name: 'twin', mode: 'linked' }, 'exists'],
  ['clone', { vm: 'web', name: 'web', mode: 'full' }, 'exists'],
  ['clone', { vm: 'web', name: '../a', mode: 'full' }, 'usage'],
  ['clone', { vm: 'web', name: 'a', mode: 'full', disk: 'disk0' }, 'usage'],
  ['clone', { vm: 'web', name: 'a', mode: 'linked', vcpus: -1 }, 'usage'],
];

t.test('refusals', async (t) => {
  const { world, calls } = await open(t);
  const state = async () =>
    JSON.stringify([await calls.list({}), await calls.tree({}), world.manifest('web')]);
  const before = await state();
  const deltas = world.fake.ids().length;
  const call = calls as Record<MethodName, (params: object) => Promise<unknown>>;
  for (const [method, params, code] of refused) {
    const shown = `${method} ${JSON.stringify(params)}`.slice(0, 120);
    t.equal(await codeOf(call[method](params)), code, shown);
  }
  t.equal(await state(), before, 'nothing changed');
  t.equal(world.fake.ids().length, deltas, 'and nothing was left behind');
  t.same(world.problems, []);
});

t.test('which disk is meant', async (t) => {
  const { world, calls } = await open(t);
  await world.service.create('two', [
    { name: 'a', size: 4096 },
    { name: 'b', size: 4096 },
  ]);
  await world.service.create('one', [{ name: 'system', size: 4096 }]);
  t.equal(await codeOf(calls.path({ vm: 'two' })), 'usage');
  t.match(await calls.path({ vm: 'one' }), { path: /one\/system\.raw$/ });
  t.match(await calls.path({ vm: 'two', disk: 'b' }), { path: /two\/b\.raw$/ });
});
