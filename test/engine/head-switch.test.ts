/**
 * Heads that move together while some of their disks are closed, are opened, or are about to close.
 */
import { rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { BLOCK_SIZE, MiB } from '../../src/common/units.js';
import { DeltaFiles } from '../../src/engine/delta/delta-files.js';
import type { DeltaId } from '../../src/engine/delta-id.js';
import type { Volume } from '../../src/engine/volume/volume.js';
import { ScratchEngine } from '../support/engine.js';
import { aroundHostCalls } from '../support/host-faults.js';

const SIZE = MiB;

interface Pair {
  readonly scratch: ScratchEngine;
  /** Open, and written to. */
  readonly busy: DeltaId;
  /** Not open. */
  readonly idle: DeltaId;
}

async function makePair(t: Test): Promise<Pair> {
  const scratch = new ScratchEngine();
  t.teardown(() => scratch.close());
  const [busy, idle] = [await makeHead(scratch), await makeHead(scratch)];
  (await open(scratch, busy)).write(block(1), 0, 0, BLOCK_SIZE);
  return { scratch, busy, idle };
}

function makeHead({ engine }: ScratchEngine, below?: DeltaId): Promise<DeltaId> {
  return engine.deltas.create({
    below: below === undefined ? { kind: 'none' } : { kind: 'delta', id: below },
    virtualSize: SIZE,
    allocation: 'dynamic',
  });
}

async function open(scratch: ScratchEngine, top: DeltaId, writable = true): Promise<Volume> {
  const { handle } = await scratch.engine.volumes.acquire(top, { writable });
  return scratch.volumeOf(handle);
}

function isSealed({ folder }: ScratchEngine, id: DeltaId): boolean {
  const files = new DeltaFiles(join(folder, 'deltas'), '');
  return files.readHeader(id).current.sealed;
}

function block(value: number): Buffer {
  return Buffer.alloc(BLOCK_SIZE, value);
}

function firstByte(volume: Volume): number {
  const bytes = Buffer.alloc(1);
  volume.read(bytes, 0, 0, 1);
  return bytes[0]!;
}

/** Runs `meanwhile` at the first sync with this label, which then takes its time. */
function during(t: Test, label: string, meanwhile: () => void): void {
  let isOver = false;
  t.teardown(
    aroundHostCalls((call, run) => {
      if (call.label !== label || call.name !== 'syncDataLater' || isOver) return run();
      isOver = true;
      meanwhile();
      return sleep(50).then(() => run());
    }),
  );
}

for (const label of ['head.sync-data', 'seal.sync-data', 'seal.sync-tuples']) {
  t.test(`a disk that is opened at ${label} of another one moves with it`, async (t) => {
    const { scratch, busy, idle } = await makePair(t);
    const { volumes } = scratch.engine;
    const heads = [await makeHead(scratch, busy), await makeHead(scratch, idle)] as const;
    let opening: Promise<Volume> | undefined;
    during(t, label, () => {
      opening = open(scratch, idle);
    });
    await volumes.switchHeads(
      [
        { from: idle, to: heads[1] },
        { from: busy, to: heads[0] },
      ],
      () => undefined,
    );
    const volume = await opening!;
    volume.write(block(7), 0, 0, BLOCK_SIZE);
    volume.flush();
    t.equal(firstByte(await open(scratch, idle, false)), 0, 'the snapshot stays as it was taken');
    await scratch.reopen();
    t.equal(firstByte(await open(scratch, heads[1])), 7, 'the disk has what was written to it');
    t.equal(firstByte(await open(scratch, idle, false)), 0, 'and the snapshot has not');
    t.same(scratch.errors, []);
  });
}

t.test('a disk that is about to close is sealed like the others', async (t) => {
  const { scratch, busy, idle } = await makePair(t);
  const { volumes } = scratch.engine;
  volumes.release(await volumes.acquire(idle, { writable: true }));
  let closing: Promise<void> | undefined;
  during(t, 'head.sync-data', () => {
    closing = volumes.close(idle);
  });
  await volumes.switchHeads(
    [
      { from: busy, to: await makeHead(scratch, busy) },
      { from: idle, to: await makeHead(scratch, idle) },
    ],
    () => undefined,
  );
  await closing;
  t.ok(isSealed(scratch, idle));
  t.ok(isSealed(scratch, busy));
});

for (const which of ['busy', 'idle'] as const) {
  t.test(
    `a head (${which}) is not sealed before it is durable that it is none any more`,
    async (t) => {
      const pair = await makePair(t);
      const { scratch } = pair;
      const from = pair[which];
      const to = await makeHead(scratch, from);
      let opening: Promise<Volume> | undefined;
      const settle = async () => {
        opening = open(scratch, to);
        await sleep(50);
        t.notOk(isSealed(scratch, from), 'a power cut now may bring it back as the head');
      };
      await scratch.engine.volumes.switchHeads([{ from, to }], () => undefined, settle);
      t.ok(isSealed(scratch, from));
      (await opening!).write(block(7), 0, 0, BLOCK_SIZE);
    },
  );
}

t.test('a switch that fails leaves the disks to be opened', async (t) => {
  const { scratch, busy, idle } = await makePair(t);
  const heads = [await makeHead(scratch, idle), await makeHead(scratch, busy)] as const;
  let opening: Promise<Volume> | undefined;
  during(t, 'head.sync-data', () => {
    opening = open(scratch, idle);
  });
  const switches = [
    { from: idle, to: heads[0] },
    { from: busy, to: heads[1] },
  ];
  const fail = () => {
    throw new Error('no commit');
  };
  await t.rejects(scratch.engine.volumes.switchHeads(switches, fail), { message: 'no commit' });
  (await opening!).write(block(7), 0, 0, BLOCK_SIZE);
  t.equal(firstByte(await open(scratch, idle)), 7);
  await scratch.reopen();
  t.equal(firstByte(await open(scratch, busy)), 1, 'what was made for the switch is given back');
});

t.test('a disk whose flush failed moves to no new head', async (t) => {
  const scratch = new ScratchEngine();
  // Closing tells of the flush once more.
  t.teardown(() => scratch.close().catch(() => rmSync(scratch.folder, { recursive: true })));
  const busy = await makeHead(scratch);
  (await open(scratch, busy)).write(block(1), 0, 0, BLOCK_SIZE);
  const { volumes } = scratch.engine;
  const to = await makeHead(scratch, busy);
  const restore = aroundHostCalls(({ label }, run) => {
    if (label !== 'head.sync-data') return run();
    throw Object.assign(new Error('EIO: injected'), { code: 'EIO' });
  });
  t.teardown(restore);
  await t.rejects(volumes.flush(busy), { message: /EIO/ });
  restore();
  let commits = 0;
  const moved = volumes.switchHeads([{ from: busy, to }], () => {
    commits += 1;
  });
  await t.rejects(moved, { message: /suspect/ });
  t.equal(commits, 0);
});

t.test('the head on a static one is not static: what it discards takes no space', async (t) => {
  const scratch = new ScratchEngine();
  t.teardown(() => scratch.close());
  const spec = { virtualSize: SIZE, allocation: 'static', below: { kind: 'none' } } as const;
  const from = await scratch.engine.deltas.create(spec);
  const volume = await open(scratch, from);
  const to = await makeHead(scratch, from);
  await scratch.engine.volumes.switchHeads([{ from, to }], () => {});
  volume.write(Buffer.alloc(SIZE, 7), 0, 0, SIZE);
  const path = new DeltaFiles(join(scratch.folder, 'deltas'), '').dataPath(to, 1);
  t.ok(statSync(path).blocks * 512 >= SIZE);
  volume.discard(0, SIZE);
  t.ok(statSync(path).blocks * 512 < SIZE / 4, 'its blocks are holes');
  t.equal(firstByte(volume), 0);
});

t.test(
  'a head that is about to be opened when it moves is opened as what it is then',
  async (t) => {
    // Between any two steps of the opening, that is.
    for (let steps = 0; steps < 8; steps += 1) {
      const scratch = new ScratchEngine();
      t.teardown(() => scratch.close());
      const { volumes } = scratch.engine;
      const head = await makeHead(scratch);
      const next = await makeHead(scratch, head);
      const opening = volumes.acquire(head, { writable: true });
      for (let step = 0; step < steps; step += 1) await undefined;
      await volumes.switchHeads([{ from: head, to: next }], () => {});
      const opened = await opening;
      t.equal(volumes.chainOf(opened).deltas[0], next, `after ${steps} steps`);
    }
  },
);
