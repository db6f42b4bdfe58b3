/** `snapshot.diff` as a client meets it: disks in order, parts, progress, refusals. */
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { diffHandlers } from '../../../src/daemon/handlers/diff-handlers.js';
import type { DiffOrder } from '../../../src/engine/jobs/diff-volumes.js';
import { FORWARD_MS } from '../../../src/engine/opening/moved-heads.js';
import { callable } from '../../support/handler-calls.js';
import { codeOf, VmWorld } from '../../support/vm-world.js';

const SIZE = 32768;

/** `web` with the disks disk0 and data, and snapshots first -- second. */
async function open(t: Test) {
  const world = await VmWorld.create();
  t.teardown(() => world.destroy());
  await world.create('web', ['disk0', 'data']);
  await world.take('web', 'first');
  await world.take('web', 'second');
  return { world, diff: callable(diffHandlers(world.service))['snapshot.diff'] };
}

function extent(start: number) {
  return { start, length: 4096, zero: false };
}

t.test('all disks, one disk, and in parts', async (t) => {
  const { world, diff } = await open(t);
  const orders: DiffOrder[] = [];
  // Every disk differs in its blocks 0 and 2.
  world.runDiff = async (order, work) => {
    orders.push(order);
    work.onProgress?.(4096, SIZE);
    const left = [extent(0), extent(8192)].filter(({ start }) => start >= order.start);
    const extents = left.slice(0, order.limit);
    const next = left[order.limit]?.start;
    return { extents, ...(next === undefined ? {} : { next }) };
  };
  const sizes = { fromSize: SIZE, toSize: SIZE };
  const both = { ...sizes, changedBytes: 8192, extents: [extent(0), extent(8192)] };
  const progress: string[] = [];
  t.strictSame(
    await diff(
      { vm: 'web', from: 'second', to: 'first' },
      { progress: (what, done, total) => progress.push(`${what} ${done} ${total}`) },
    ),
    {
      ...{ vm: 'web', from: 'second', to: 'first' },
      disks: [
        { disk: 'disk0', ...both },
        { disk: 'data', ...both },
      ],
    },
  );
  t.strictSame(progress, ['comparing web 4096 65536', `comparing web ${SIZE + 4096} 65536`]);
  t.match(orders, [
    { start: 0, limit: 4000 },
    { start: 0, limit: 3998 },
  ]);
  t.strictSame(await diff({ vm: 'web', from: 'first', disk: 'data' }), {
    ...{ vm: 'web', from: 'first', disks: [{ disk: 'data', ...both }] },
  });
  const asked = { vm: 'web', from: 'first', limit: 1 };
  const one = (disk: string, start: number) => [
    { disk, ...sizes, changedBytes: 4096, extents: [extent(start)] },
  ];
  const steps = [
    [one('disk0', 0), { disk: 'disk0', start: 8192 }],
    [one('disk0', 8192), { disk: 'data', start: 0 }],
    [one('data', 0), { disk: 'data', start: 8192 }],
    [one('data', 8192), undefined],
  ] as const;
  let next: { disk: string; start: number } | undefined;
  for (const [disks, then] of steps) {
    const page = await diff({ ...asked, ...(next === undefined ? {} : { next }) });
    t.strictSame(page.disks, disks);
    t.strictSame(page.next, then);
    next = page.next;
  }
});

t.test('a disk that only one state has is said as such, and not compared', async (t) => {
  const { world, diff } = await open(t);
  await world.service.changeKinds('web', [{ disk: 'data', kind: 'write-through' }]);
  await world.take('web', 'third');
  world.runDiff = async () => ({ extents: [] });
  const alone = { changedBytes: SIZE, extents: [] };
  const [, later] = (await diff({ vm: 'web', from: 'third' })).disks;
  t.strictSame(later, { disk: 'data', toSize: SIZE, ...alone });
  const [, earlier] = (await diff({ vm: 'web', from: 'first', to: 'third' })).disks;
  t.strictSame(earlier, { disk: 'data', fromSize: SIZE, ...alone });
});

t.test('refused, and what it compares stays while it does', async (t) => {
  const { world, diff } = await open(t);
  for (const params of [
    { vm: 'none', from: 'first' },
    { vm: 'web', from: 'none' },
    { vm: 'web', from: 'first', to: 'none' },
    { vm: 'web', from: 'first', disk: 'none' },
    { vm: 'web', from: 'first', next: { disk: 'none', start: 0 } },
  ]) {
    t.equal(await codeOf(diff(params)), 'not-found', JSON.stringify(params));
  }
  await t.rejects(diff({ vm: 'web', from: 'first', to: 'none' }), /no snapshot "none"/);
  await t.rejects(diff({ vm: 'web', from: 'first', disk: 'c' }), /no disk "c"/);
  world.runDiff = async () => {
    await world.service.deleteSnapshot('web', 'first');
    t.strictSame((await world.service.collectGarbage(true)).files, []);
    return { extents: [] };
  };
  await diff({ vm: 'web', from: 'first', disk: 'data' });
});

t.test('a head that moved on long ago, while other disks were compared', async (t) => {
  const world = await VmWorld.create('real');
  t.teardown(() => world.destroy());
  await world.create('web', ['disk0', 'data']);
  await world.take('web', 'first');
  const { setTimeout: real } = globalThis;
  const hurried = (task: () => void, ms?: number) => real(task, ms === FORWARD_MS ? 0 : ms);
  t.intercept(globalThis, 'setTimeout', { value: hurried });
  let runs = 0;
  world.runDiff = async () => {
    runs += 1;
    if (runs === 1) await world.take('web', 'second');
    await sleep(20);
    return { extents: [] };
  };
  const { disks } = await callable(diffHandlers(world.service))['snapshot.diff']({
    vm: 'web',
    from: 'first',
  });
  t.match(disks, [{ disk: 'disk0' }, { disk: 'data' }]);
  t.equal(runs, 2);
});
