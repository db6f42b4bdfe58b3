/** Copies of volumes: what is left out of them, and what has to be said instead. */
import { writeSync } from 'node:fs';
import t, { type Test } from 'tap';
import { BLOCK_SIZE, KiB, SECTOR_SIZE } from '../../src/common/units.js';
import type { DeltaId } from '../../src/engine/delta-id.js';
import type { Below } from '../../src/engine/engine.js';
import { ChainMap } from '../../src/engine/shared/chain-map.js';
import { DATA } from '../../src/engine/shared/map-words.js';
import { THREAD, VOLUME } from '../../src/engine/shared/shared-memory.js';
import { SlotSpace } from '../../src/engine/shared/slot-space.js';
import { VolumeRow } from '../../src/engine/shared/volume-row.js';
import { ScratchEngine } from '../support/engine.js';
import { aroundHostCalls } from '../support/host-faults.js';

const UNIT = 64 * KiB;
const BASE = 'b'.repeat(32);
/** The last block and the last unit are cut short. */
const SIZE = 40 * UNIT + 5 * SECTOR_SIZE;

class Copies {
  readonly scratch = new ScratchEngine();

  constructor(t: Test) {
    t.teardown(() => this.scratch.close());
  }

  create(below: Below): Promise<DeltaId> {
    return this.scratch.engine.deltas.create({
      below,
      virtualSize: SIZE,
      allocation: 'dynamic',
    });
  }

  /** A delta with these bytes: zeroes are written as any others. */
  async written(bytes: Buffer, below: Below = { kind: 'none' }): Promise<DeltaId> {
    const delta = await this.create(below);
    const { volumes } = this.scratch.engine;
    const open = await volumes.acquire(delta, { writable: true });
    this.scratch.volumeOf(open.handle).write(bytes, 0, 0, SIZE);
    volumes.release(open);
    return delta;
  }

  /** @returns the bytes of a volume, and how many blocks its deltas hold. */
  async shown(delta: DeltaId): Promise<{ bytes: Buffer; held: number }> {
    const { volumes } = this.scratch.engine;
    const open = await volumes.acquire(delta, { writable: false });
    try {
      const bytes = Buffer.alloc(SIZE);
      const volume = this.scratch.volumeOf(open.handle);
      volume.read(bytes, 0, 0, SIZE);
      return { bytes, held: volume.allocatedSize / BLOCK_SIZE };
    } finally {
      volumes.release(open);
    }
  }

  copy(source: DeltaId, target: DeltaId): Promise<void> {
    return this.scratch.engine.volumes.copy(source, target, {});
  }
}

/** Units of data and of zeroes by turns; the last one, which is cut short, is data. */
function striped(fill: number): Buffer {
  const bytes = Buffer.alloc(SIZE);
  for (let at = 0; at < SIZE; at += 2 * UNIT) bytes.fill(fill, at, Math.min(at + UNIT, SIZE));
  // A single byte keeps a whole unit.
  bytes[UNIT + 1234] = fill;
  return bytes;
}

t.test('zeroes that were written are left out of a copy', async (t) => {
  const copies = new Copies(t);
  const bytes = striped(7);
  const source = await copies.written(bytes);
  t.equal((await copies.shown(source)).held, Math.ceil(SIZE / BLOCK_SIZE), 'the source holds all');
  const target = await copies.create({ kind: 'none' });
  await copies.copy(source, target);
  const { bytes: copied, held } = await copies.shown(target);
  t.ok(copied.equals(bytes), 'all bytes are the same');
  t.equal(held, (21 * UNIT) / BLOCK_SIZE + 1, '20 units, the one with a byte, the cut block');
});

t.test('a copy of zeroes alone holds nothing', async (t) => {
  const copies = new Copies(t);
  const source = await copies.written(Buffer.alloc(SIZE));
  const target = await copies.create({ kind: 'none' });
  await copies.copy(source, target);
  t.same(await copies.shown(target), { bytes: Buffer.alloc(SIZE), held: 0 });
});

t.test('zeroes hide what the target stands on', async (t) => {
  const copies = new Copies(t);
  copies.scratch.bases.set(BASE, Buffer.alloc(SIZE, 3));
  const bytes = striped(9);
  const source = await copies.written(bytes);
  const target = await copies.create({ kind: 'base', id: BASE });
  await copies.copy(source, target);
  t.ok((await copies.shown(target)).bytes.equals(bytes), 'nothing of the base shows');
  await copies.scratch.reopen();
  t.ok((await copies.shown(target)).bytes.equals(bytes), 'nor when it is opened again');
});

t.test('room is asked for what a copy stores, not for zeroes', async (t) => {
  const copies = new Copies(t);
  const source = await copies.written(striped(5));
  const { allowance } = copies.scratch.engine.context;
  // 20 units, the one with a byte, and the cut block.
  const stored = 21 * UNIT + BLOCK_SIZE;
  allowance.publish(() => stored, 0);
  const target = await copies.create({ kind: 'none' });
  await copies.copy(source, target);
  t.equal((await copies.shown(target)).held, stored / BLOCK_SIZE, 'it just fits');
  allowance.publish(() => stored - UNIT, 0);
  const other = await copies.create({ kind: 'none' });
  await t.rejects(copies.copy(source, other), { code: 'failed', errno: 'ENOSPC' });
  t.equal((await copies.shown(other)).held, 0, 'refused before the first byte');
});

t.test('what was shared of a file that is not the source any more is copied', async (t) => {
  const copies = new Copies(t);
  const bytes = Buffer.alloc(SIZE, 'source');
  const [source, merged] = [await copies.written(bytes), await copies.written(bytes)];
  const { volumes, context } = copies.scratch.engine;
  const opened = await volumes.acquire(source, { writable: true });
  const other = await volumes.acquire(merged, { writable: true });
  const row = new VolumeRow(context.views, opened.handle);
  let count = 0;
  const restore = aroundHostCalls(({ name, label, args }, run) => {
    if (name !== 'share') return run();
    t.equal(label, 'head.share');
    const range = args[1] as Buffer;
    const length = Number(range.readBigUInt64LE(16));
    // The descriptor that was looked up is another file's by now, which is full of something else.
    writeSync(args[0] as number, Buffer.alloc(length, 0xee), 0, length, targetOf(range));
    count += 1;
    if (count > 1) return undefined;
    const space = new SlotSpace(context.views.volumes, context.nodes.pages, opened.handle);
    const made = new VolumeRow(context.views, other.handle).get(VOLUME.head);
    const place = { root: row.get(VOLUME.mapRoot), levels: row.get(VOLUME.mapLevels) };
    const blocks = Math.floor(SIZE / BLOCK_SIZE);
    new ChainMap(context.nodes, place).set(0, blocks, DATA, space.addSegment(made, 0));
    return undefined;
  });
  t.teardown(restore);
  const target = await copies.create({ kind: 'none' });
  await copies.copy(source, target);
  t.equal(count, 1, 'all but the cut block at once');
  t.ok((await copies.shown(target)).bytes.equals(bytes));
  for (const each of [opened, other]) volumes.release(each);
});

/** Of a struct file_clone_range. */
function targetOf(range: Buffer): number {
  return Number(range.readBigUInt64LE(24));
}

t.test('blocks that a copy shares are as durable as those that it writes', async (t) => {
  const copies = new Copies(t);
  const { volumes } = copies.scratch.engine;
  const target = await copies.create({ kind: 'none' });
  const open = await volumes.acquire(target, { writable: true });
  const volume = copies.scratch.volumeOf(open.handle);
  // A disk that was opened a moment ago is flushed once in any case.
  volume.flush();
  const labels: string[] = [];
  const restore = aroundHostCalls(({ label, name }, run) => {
    labels.push(label);
    // The host of this test may be one that cannot share.
    return name === 'share' ? undefined : run();
  });
  t.teardown(restore);
  t.ok(volume.shareBlocks(0, 1, { fd: -1, offset: 0 }));
  labels.length = 0;
  volume.flush();
  t.same(
    labels.filter((label) => label.startsWith('head.sync')),
    ['head.sync-data', 'head.sync-tuples'],
  );
  restore();
  volumes.release(open);
});

t.test('a copy is inside the gate of a volume whenever it looks at its map', async (t) => {
  const copies = new Copies(t);
  const source = await copies.written(striped(7));
  const target = await copies.create({ kind: 'none' });
  const { threads } = copies.scratch.engine.context.views;
  let looks = 0;
  let outside = 0;
  const { find } = ChainMap.prototype;
  t.intercept(ChainMap.prototype, 'find', {
    value(this: ChainMap, block: number, limit: number) {
      looks += 1;
      // Else a merge may give back the very node that it is in.
      if (threads[THREAD.inside] === 0) outside += 1;
      find.call(this, block, limit);
    },
  });
  await copies.copy(source, target);
  t.ok(looks > 0);
  t.equal(outside, 0);
});
