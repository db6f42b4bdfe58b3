/** Comparing two volumes: against the plain difference of their bytes, in parts of any size. */
import t, { type Test } from 'tap';
import type { DiffExtent, DiffPart } from '../../src/common/disk-diff.js';
import { BLOCK_SIZE, MiB, SECTOR_SIZE } from '../../src/common/units.js';
import type { DeltaId } from '../../src/engine/delta-id.js';
import type { Below, JobWork } from '../../src/engine/engine.js';
import { diffVolumes } from '../../src/engine/jobs/diff-volumes.js';
import { VOLUME } from '../../src/engine/shared/shared-memory.js';
import { VolumeRow } from '../../src/engine/shared/volume-row.js';
import { differentBlocks } from '../support/different-blocks.js';
import { ScratchEngine } from '../support/engine.js';
import { aroundHostCalls } from '../support/host-faults.js';
import { createRandom, newSeed } from '../support/random.js';

const SIZE = 3 * MiB + 5 * SECTOR_SIZE;
const BASE = 'b'.repeat(32);
const OTHER_BASE = 'c'.repeat(32);

class Disks {
  readonly scratch = new ScratchEngine();

  constructor(t: Test) {
    t.teardown(() => this.scratch.close());
  }

  create(below: Below, virtualSize = SIZE): Promise<DeltaId> {
    const allocation = 'dynamic' as const;
    return this.scratch.engine.deltas.create({ below, virtualSize, allocation });
  }

  /** A new head on a delta, which is sealed by it. */
  async seal(delta: DeltaId): Promise<DeltaId> {
    const head = await this.create({ kind: 'delta', id: delta });
    await this.scratch.engine.volumes.switchHeads([{ from: delta, to: head }], () => undefined);
    return head;
  }

  async write(head: DeltaId, offset: number, bytes: Buffer): Promise<void> {
    await this.#with(head, true, (handle) =>
      this.scratch.volumeOf(handle).write(bytes, 0, offset, bytes.length),
    );
  }

  async discard(head: DeltaId, offset: number, length: number): Promise<void> {
    await this.#with(head, true, (handle) => this.scratch.volumeOf(handle).discard(offset, length));
  }

  bytes(top: DeltaId, writable = false): Promise<Buffer> {
    return this.#with(top, writable, (handle) => {
      const volume = this.scratch.volumeOf(handle);
      const bytes = Buffer.alloc(volume.size);
      volume.read(bytes, 0, 0, volume.size);
      return bytes;
    });
  }

  diff(from: DeltaId, to: DeltaId, range: Range = {}, work: JobWork = {}): Promise<DiffPart> {
    const { start = 0, limit = 1000, writable = false } = range;
    return this.#with(from, false, (before) =>
      this.#with(to, writable, (after) =>
        diffVolumes(this.scratch.engine.context, { from: before, to: after, start, limit }, work),
      ),
    );
  }

  async #with<T>(top: DeltaId, writable: boolean, use: (handle: number) => T | Promise<T>) {
    const { volumes } = this.scratch.engine;
    const open = await volumes.acquire(top, { writable });
    try {
      return await use(open.handle);
    } finally {
      volumes.release(open);
    }
  }
}

interface Range {
  readonly start?: number;
  readonly limit?: number;
  readonly writable?: boolean;
}

t.test('random work, compared both ways and in parts', async (t) => {
  const random = createRandom(newSeed());
  t.comment(`seed ${random.seed}`);
  const disks = new Disks(t);
  disks.scratch.bases.set(BASE, random.bytes(2 * MiB + 700));
  let head = await disks.create({ kind: 'base', id: BASE });
  const sealed: DeltaId[] = [];
  for (let round = 0; round < 12; round += 1) {
    for (let step = 0; step < 15; step += 1) {
      const offset = random.below(SIZE - 1);
      const length = 1 + random.below(Math.min(64 * 1024, SIZE - offset) - 1);
      const dice = random.below(4);
      if (dice === 0) await disks.discard(head, offset, length);
      else if (dice === 1) await disks.write(head, offset, Buffer.alloc(length));
      else if (dice === 2)
        await disks.write(
          head,
          offset,
          (await disks.bytes(head, true)).subarray(offset, offset + length),
        );
      else await disks.write(head, offset, random.bytes(length));
    }
    sealed.push(head);
    head = await disks.seal(head);
  }
  await disks.write(head, 10 * BLOCK_SIZE, random.bytes(BLOCK_SIZE));
  for (let round = 0; round < 20; round += 1) {
    const from = random.pick(sealed);
    const isLive = random.below(4) === 0;
    const to = isLive ? head : random.pick(sealed);
    const expected = differentBlocks(await disks.bytes(from), await disks.bytes(to, isLive));
    const whole = await disks.diff(from, to, { limit: 4000, writable: isLive });
    t.strictSame(whole, { extents: expected }, `round ${round}`);
    const parts: DiffExtent[] = [];
    const limit = 1 + random.below(5);
    for (let start: number | undefined = 0; start !== undefined; ) {
      const part: DiffPart = await disks.diff(from, to, { start, limit, writable: isLive });
      t.ok(part.extents.length <= limit);
      parts.push(...part.extents);
      start = part.next;
    }
    t.strictSame(parts, expected, `round ${round}, ${limit} at a time`);
  }
});

t.test('other bases, and nothing on either side', async (t) => {
  const disks = new Disks(t);
  const bytes = Buffer.alloc(SIZE - 1000, 1);
  const other = Buffer.from(bytes);
  other[MiB] = 2;
  disks.scratch.bases.set(BASE, bytes);
  disks.scratch.bases.set(OTHER_BASE, other);
  const one = await disks.create({ kind: 'base', id: BASE });
  const two = await disks.create({ kind: 'base', id: OTHER_BASE });
  const none = await disks.create({ kind: 'none' });
  for (const head of [one, two, none]) await disks.seal(head);
  const changed = { start: MiB, length: BLOCK_SIZE, zero: false };
  t.strictSame(await disks.diff(one, two), { extents: [changed] });
  t.strictSame(await disks.diff(none, none), { extents: [] });
  const all = differentBlocks(await disks.bytes(one), await disks.bytes(none));
  t.strictSame(await disks.diff(one, none), { extents: all });
});

t.test('sizes that differ', async (t) => {
  const disks = new Disks(t);
  const short = await disks.create({ kind: 'none' }, MiB + SECTOR_SIZE);
  const long = await disks.create({ kind: 'none' }, SIZE);
  await disks.write(short, MiB, Buffer.alloc(SECTOR_SIZE, 1));
  await disks.write(long, 2 * MiB + 8192, Buffer.alloc(100, 1));
  await disks.write(long, SIZE - 1, Buffer.alloc(1, 1));
  for (const head of [short, long]) {
    const { volumes } = disks.scratch.engine;
    const virtualSize = head === short ? MiB + SECTOR_SIZE : SIZE;
    const to = await disks.create({ kind: 'delta', id: head }, virtualSize);
    await volumes.switchHeads([{ from: head, to }], () => undefined);
  }
  for (const [from, to] of [
    [short, long],
    [long, short],
  ] as const) {
    const expected = differentBlocks(await disks.bytes(from), await disks.bytes(to));
    t.strictSame(await disks.diff(from, to), { extents: expected });
  }
});

t.test('64 TiB of nothing take no time; progress, and an end before the end', async (t) => {
  const disks = new Disks(t);
  const huge = 64 * 1024 ** 4;
  const first = await disks.create({ kind: 'none' }, huge);
  const { volumes } = disks.scratch.engine;
  const head = await disks.create({ kind: 'delta', id: first }, huge);
  await volumes.switchHeads([{ from: first, to: head }], () => undefined);
  await disks.write(head, huge - 4096, Buffer.alloc(1, 1));
  let told = 0;
  const work = { onProgress: (done: number) => (told = done) };
  const part = await disks.diff(first, head, { writable: true }, work);
  t.strictSame(part, { extents: [{ start: huge - 4096, length: 4096, zero: false }] });
  t.equal(told, huge);
  const signal = { aborted: true };
  await t.rejects(disks.diff(first, head, { writable: true }, { signal }), { code: 'interrupted' });
});

t.test('a disk that gets another size at the last moment is no answer', async (t) => {
  const disks = new Disks(t);
  const first = await disks.create({ kind: 'none' });
  const head = await disks.seal(first);
  await disks.write(head, 0, Buffer.alloc(SIZE, 1));
  const { volumes, context } = disks.scratch.engine;
  const { handle } = await volumes.acquire(head, { writable: true });
  t.teardown(() => volumes.release({ handle }));
  const row = new VolumeRow(context.views, handle);
  const restored = aroundHostCalls(({ label }, run) => {
    // A restore on the main thread, seen from the one that compares.
    if (label === 'delta.read' && row.size === SIZE) {
      row.size = MiB;
      row.set(VOLUME.incarnation, row.get(VOLUME.incarnation) + 1);
    }
    return run();
  });
  t.teardown(restored);
  const start = 3 * MiB;
  await t.rejects(disks.diff(first, head, { writable: true, start }), { code: 'busy' });
});
