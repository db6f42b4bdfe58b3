/** What requests tell whoever listens: each change once, in order, and nothing that failed. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { DiskError } from '../../../src/common/errors.js';
import { formatSize, MiB } from '../../../src/common/units.js';
import type { EventView, Handlers, MethodName } from '../../../src/control/protocol.js';
import { EventHub } from '../../../src/daemon/event-hub.js';
import { tellingHandlers } from '../../../src/daemon/handlers/telling-handlers.js';
import { vmHandlers } from '../../../src/daemon/handlers/vm-handlers.js';
import { recordingHandlers } from '../../control/recording-handlers.js';
import { type Calls, callable } from '../../support/handler-calls.js';
import { LoopWorld, noLoopDevices, run } from '../../support/loop-world.js';
import { noGuests } from '../../support/no-guests.js';
import { codeOf, VmWorld } from '../../support/vm-world.js';

interface Setting {
  readonly world: VmWorld;
  readonly calls: Calls<MethodName>;
  /** What was told since the last time, without times. */
  heard(): object[];
}

/** @param own handlers besides those of VMs; the rest are recorded ones. */
function listen(t: Test, world: VmWorld, mountpoint: string, own: Partial<Handlers>): Setting {
  const events: EventView[] = [];
  const end = new AbortController();
  const hub = new EventHub({ standing: () => [], onListener: () => undefined });
  const told = tellingHandlers(
    { ...recordingHandlers().handlers, ...own },
    {
      ...{ hub, service: world.service, mountpoint },
      guestWatch: { look: () => undefined },
      onProblem: (what, error) => t.fail(`${what}: ${String(error)}`),
    },
  );
  const calls = callable(told);
  const over = calls.events({}, { signal: end.signal, event: (event) => events.push(event) });
  t.teardown(async () => {
    end.abort();
    await codeOf(over);
  });
  const heard = () =>
    events.splice(0).map(({ time, ...event }) => {
      t.match(time, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
      return event;
    });
  t.match(heard(), [{ event: 'listening', pid: process.pid }]);
  return { world, calls, heard };
}

async function open(t: Test): Promise<Setting> {
  const world = await VmWorld.create();
  t.teardown(() => world.destroy());
  const { 'export.ova': ova } = recordingHandlers().handlers;
  const all = vmHandlers({
    service: world.service,
    mountpoint: world.mountpoint,
    isOpen: () => false,
    storedSize: (id) => world.engine.deltas.describe(id).storedSize,
    guests: noGuests(world),
  });
  // What packs archives is no part of this world.
  return listen(t, world, world.mountpoint, { ...all, 'export.ova': ova });
}

t.test('VMs', async (t) => {
  const { world, calls, heard } = await open(t);
  await calls.create({ vm: 'web', disks: [{ size: MiB }] });
  t.same(heard(), [{ event: 'vm.created', text: 'created web', vm: 'web' }]);
  const file = await world.rawFile('old.img', Buffer.alloc(8192));
  await calls.import({ files: [file], vm: 'old' });
  t.same(heard(), [{ event: 'vm.imported', text: 'imported old', vm: 'old' }]);
  await calls.rename({ vm: 'old', name: 'new' });
  const renamed = { event: 'vm.renamed', text: 'renamed old to new', vm: 'old', name: 'new' };
  t.same(heard(), [renamed]);
  await calls.set({ vm: 'web', vcpus: 2, memory: MiB });
  const changed = ['vcpus', 'memory'];
  const text = 'set vcpus, memory of web';
  t.same(heard(), [{ event: 'vm.changed', text, vm: 'web', changed }]);
  await calls.set({ vm: 'web' });
  t.same(heard(), [], 'nothing was set');
  await calls.clone({ vm: 'web', name: 'full', mode: 'full' });
  t.match(heard(), [{ event: 'vm.cloned', vm: 'full', source: 'web', mode: 'full' }]);
  await calls.clone({ vm: 'web', name: 'twin', mode: 'linked' });
  t.match(heard(), [
    { event: 'snapshot.taken', vm: 'web', snapshot: 'clone-twin' },
    { event: 'vm.cloned', vm: 'twin', source: 'web@clone-twin', mode: 'linked' },
  ]);
  await calls.delete({ vm: 'full' });
  t.same(heard(), [{ event: 'vm.deleted', text: 'deleted full', vm: 'full' }]);
  await calls['base.accept']({ vm: 'new' });
  t.same(heard(), [], 'no base had changed');
});

t.test('snapshots', async (t) => {
  const { calls, heard } = await open(t);
  await calls.create({ vm: 'web', disks: [{ size: MiB }] });
  heard();
  const vm = 'web';
  const taken = (snapshot: string) => ({
    event: 'snapshot.taken',
    text: `took web@${snapshot} (consistent)`,
    ...{ vm, snapshot, consistency: 'consistent' },
  });
  await calls['snapshot.take']({ vm, snapshot: 'one' });
  t.same(heard(), [taken('one')]);
  await calls['snapshot.rename']({ vm, snapshot: 'one', name: 'first' });
  t.match(heard(), [{ event: 'snapshot.renamed', vm, snapshot: 'one', name: 'first' }]);
  await t.rejects(calls['snapshot.rename']({ vm, snapshot: 'first', name: 'first' }));
  t.same(heard(), [], 'the name that it has');
  const restored = { event: 'snapshot.restored', text: 'restored web to first' };
  await calls['snapshot.restore']({ vm, snapshot: 'first', saveCurrent: 'kept' });
  t.same(heard(), [taken('kept'), { ...restored, vm, snapshot: 'first' }]);
  await calls['snapshot.restore']({ vm, snapshot: 'first', discard: true });
  t.same(heard(), [{ ...restored, vm, snapshot: 'first' }]);
  await calls['snapshot.delete']({ vm, snapshot: 'kept' });
  t.same(heard(), [{ event: 'snapshot.deleted', text: 'deleted web@kept', vm, snapshot: 'kept' }]);
});

t.test('disks that come, go, or get another size', async (t) => {
  const { calls, heard } = await open(t);
  const vm = 'web';
  await calls.create({ vm, disks: [{ size: MiB }] });
  heard();
  await calls['disk.add']({ vm, disk: { name: 'data', size: MiB } });
  t.same(heard(), [{ event: 'disk.added', text: 'added web/data', vm, disk: 'data' }]);
  await calls['disk.resize']({ vm, disk: 'data', size: 2 * MiB });
  const resized = { event: 'disk.resized', text: 'resized web/data to 2 MiB' };
  t.same(heard(), [{ ...resized, vm, disk: 'data', bytes: 2 * MiB }]);
  await calls['disk.remove']({ vm, disk: 'data' });
  t.same(heard(), [{ event: 'disk.removed', text: 'removed web/data', vm, disk: 'data' }]);
});

t.test('what is refused, fails or only looks is not told', async (t) => {
  const { world, calls, heard } = await open(t);
  await calls.create({ vm: 'web', disks: [{ size: MiB }] });
  await calls['snapshot.take']({ vm: 'web', snapshot: 'one' });
  heard();
  t.equal(await codeOf(calls.create({ vm: 'web', disks: [{ size: MiB }] })), 'exists');
  t.equal(await codeOf(calls.delete({ vm: 'nobody' })), 'not-found');
  t.equal(await codeOf(calls['snapshot.take']({ vm: 'web', snapshot: 'one' })), 'exists');
  world.hooks.holders = async () => [{ what: 'somebody', byPath: true }];
  const restore = { vm: 'web', snapshot: 'one', saveCurrent: 'kept' };
  t.equal(await codeOf(calls['snapshot.restore'](restore)), 'busy');
  await calls.list({});
  for (const method of ['info', 'tree', 'path', 'snapshot.list', 'map'] as const) {
    await calls[method]({ vm: 'web' });
  }
  await calls.gc({ dryRun: true });
  t.same(heard(), []);
});

t.test('garbage that was removed', async (t) => {
  const { calls, heard } = await open(t);
  await calls.create({ vm: 'web', disks: [{ size: MiB }] });
  await calls.delete({ vm: 'web' });
  heard();
  const { files, bytes } = await calls.gc({});
  const text = `gc removed ${files.length} files, ${formatSize(bytes)}`;
  t.same(heard(), [{ event: 'garbage.removed', text, removed: files.length, bytes }]);
  t.same(await calls.gc({}), { dryRun: false, files: [], bytes: 0 });
  t.same(heard(), [], 'there is none left');
});

t.test('exports, however they end', async (t) => {
  const { world, calls, heard } = await open(t);
  await calls.create({ vm: 'web', disks: [{ size: MiB }] });
  heard();
  const path = join(world.folder, 'web.qcow2');
  const request = { vm: 'web', path, format: 'qcow2' } as const;
  const about = { event: 'export.ended', vm: 'web', disk: 'disk0', path, format: 'qcow2' };
  await calls.export(request);
  t.match(heard(), [{ ...about, outcome: 'done' }]);
  t.equal(await codeOf(calls.export({ ...request, vm: 'nobody' })), 'not-found');
  t.same(heard(), [], 'one that never began');
  for (const [code, outcome] of [
    ['failed', 'failed'],
    ['interrupted', 'cancelled'],
  ] as const) {
    const fails: Handlers['export'] = async (_, { progress }) => {
      progress('exporting web', 1, 2);
      throw new DiskError(code, 'the disk is gone');
    };
    const other = listen(t, world, world.mountpoint, { export: fails });
    t.equal(await codeOf(other.calls.export(request)), code);
    t.match(other.heard(), [{ ...about, outcome }]);
  }
  await calls['export.ova']({ vm: 'web', path: join(world.folder, 'web.ova') });
  t.match(heard(), [{ event: 'export.ended', vm: 'web', format: 'ova', outcome: 'done' }]);
  await calls['export.machine']({ vm: 'web', kind: 'libvirt-xml' });
  t.same(heard(), [], 'a text that no file was written for');
});

t.test('damage that a check finds', async (t) => {
  const { world } = await open(t);
  const own = { check: async () => ({ damaged: 2 }) } as unknown as Partial<Handlers>;
  const { calls, heard } = listen(t, world, world.mountpoint, own);
  await calls.check({ vm: 'web' });
  t.match(heard(), [{ event: 'damage.found', vm: 'web', damaged: 2 }]);
});

t.test('loop devices and mounts', { skip: noLoopDevices() }, async (t) => {
  const world = await LoopWorld.create();
  t.teardown(() => world.destroy());
  await world.vms.create('web');
  await world.vms.take('web', 'one');
  const mountpoint = join(world.folder, 'mnt');
  const { calls, heard } = listen(t, world.vms, mountpoint, world.handlers as Partial<Handlers>);
  const path = await world.expose('web', undefined, 4 * MiB);
  await world.expose('web', 'one', 4 * MiB);
  const web = { vm: 'web', disk: 'disk0' };

  const { device } = await calls.attach({ vm: 'web' });
  t.match(heard(), [{ event: 'disk.attached', ...web, device, readOnly: false }]);
  t.match(await calls.attach({ vm: 'web' }), { device, already: true });
  t.same(heard(), [], 'it was attached before');
  await calls.detach({ device });
  t.match(heard(), [{ event: 'disk.detached', ...web, device }]);

  const snapshot = await calls.attach({ vm: 'web', snapshot: 'one' });
  const one = { ...web, snapshot: 'one' };
  t.match(heard(), [{ event: 'disk.attached', ...one, readOnly: true }]);
  await calls.detach({ target: { vm: 'web', snapshot: 'one' } });
  t.match(heard(), [{ event: 'disk.detached', ...one, device: snapshot.device }]);

  run('mkfs.ext4', '-q', path);
  const directory = await world.directory('place');
  await calls.mount({ vm: 'web', directory });
  t.ok(existsSync(join(directory, 'lost+found')));
  t.match(heard(), [{ event: 'disk.mounted', ...web, directory }]);
  await calls.unmount({ directory });
  t.match(heard(), [{ event: 'disk.unmounted', ...web, directory }]);
  t.equal(await codeOf(calls.unmount({ directory })), 'not-found');
  t.same(heard(), []);
});
