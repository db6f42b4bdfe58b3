/** Slots of a head: each is given out once, and there is an end to them. */
import t, { type Test } from 'tap';
import { BLOCK_SIZE, MiB, TiB } from '../../src/common/units.js';
import { MAX_SLOTS } from '../../src/engine/delta/delta-layout.js';
import { VOLUME } from '../../src/engine/shared/shared-memory.js';
import { VolumeRow } from '../../src/engine/shared/volume-row.js';
import type { Volume } from '../../src/engine/volume/volume.js';
import { ScratchEngine } from '../support/engine.js';
import { aroundHostCalls } from '../support/host-faults.js';

const EMPTY = { below: { kind: 'none' }, virtualSize: MiB, allocation: 'dynamic' } as const;

async function openDisk(t: Test) {
  const scratch = new ScratchEngine();
  t.teardown(() => scratch.close());
  const { deltas, volumes, context } = scratch.engine;
  const head = await deltas.create(EMPTY);
  const { handle } = await volumes.acquire(head, { writable: true });
  const row = new VolumeRow(context.views, handle);
  return { scratch, head, row, volume: scratch.volumeOf(handle) };
}

function write(volume: Volume, block: number, count: number, value: number): void {
  const bytes = Buffer.alloc(count * BLOCK_SIZE, value);
  volume.write(bytes, 0, block * BLOCK_SIZE, bytes.length);
}

function shownBy(volume: Volume, block: number): number | undefined {
  const bytes = Buffer.alloc(BLOCK_SIZE);
  volume.read(bytes, 0, block * BLOCK_SIZE, BLOCK_SIZE);
  return bytes.every((byte) => byte === bytes[0]) ? bytes[0] : undefined;
}

t.test('a head of 16 TiB takes no more, and a snapshot starts the next one', async (t) => {
  const { scratch, head, row, volume } = await openDisk(t);
  const { deltas, volumes } = scratch.engine;
  row.set(VOLUME.nextSlot, MAX_SLOTS - 1);
  const full = { code: 'failed', errno: 'ENOSPC', message: /holds 16 TiB already/ };
  t.throws(() => write(volume, 0, 2, 1), full);
  t.equal(row.get(VOLUME.recordCount), 0, 'nothing is recorded');
  t.equal(shownBy(volume, 0), 0);
  const to = await deltas.create({ ...EMPTY, below: { kind: 'delta', id: head } });
  await volumes.switchHeads([{ from: head, to }], () => {});
  write(volume, 0, 2, 1);
  t.same(
    [0, 1].map((block) => shownBy(volume, block)),
    [1, 1],
    'as the hint says',
  );
});

t.test('slots of a write that failed are not taken from one that came after it', async (t) => {
  const { row, volume } = await openDisk(t);
  let later = -1;
  const restore = aroundHostCalls(({ label }, run) => {
    if (label !== 'head.write' || later >= 0) return run();
    // Another thread takes the next slot before this write fails.
    later = row.get(VOLUME.nextSlot);
    row.set(VOLUME.nextSlot, later + 1);
    throw Object.assign(new Error('EIO: injected'), { code: 'EIO' });
  });
  t.teardown(restore);
  t.throws(() => write(volume, 0, 1, 1), { message: /EIO/ });
  write(volume, 2, 1, 3);
  t.equal(row.get(VOLUME.nextSlot), later + 2, `slot ${later} stays with whoever took it`);
});

t.test('a statically allocated disk has a slot for each block, or is refused', async (t) => {
  const { scratch } = await openDisk(t);
  const large = { ...EMPTY, virtualSize: 16 * TiB, allocation: 'static' } as const;
  const refused = { code: 'not-supported', message: /smaller than 16 TiB/ };
  await t.rejects(scratch.engine.deltas.create(large), refused);
});
