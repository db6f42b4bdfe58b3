/** Random operations on real delta files against a plain in-memory model, from a printed seed. */
import t from 'tap';
import { BLOCK_SIZE, SECTOR_SIZE } from '../../src/common/units.js';
import { isZero } from '../../src/common/zeroes.js';
import type { DeltaId } from '../../src/engine/delta-id.js';
import type { Below } from '../../src/engine/engine.js';
import { ScratchEngine } from '../support/engine.js';
import { createRandom, newSeed, type Random } from '../support/random.js';
import { Tally, triesOr } from '../torture/tally.js';

interface Disk {
  head: DeltaId;
  bytes: Buffer;
}

interface Snapshot {
  readonly delta: DeltaId;
  readonly bytes: Buffer;
}

const KINDS = ['none', 'base', 'static'] as const;
const STEPS = Math.ceil(triesOr(4500) / KINDS.length);
/** With more of them, a step of a long run would have ever more to look at. */
const MOST_SNAPSHOTS = 60;
const MOST_DISKS = 20;

/** The model and the engine side by side. */
class Twin {
  readonly scratch = new ScratchEngine();
  readonly random: Random;
  readonly size: number;
  readonly disks: Disk[] = [];
  readonly snapshots: Snapshot[] = [];

  constructor(random: Random) {
    this.random = random;
    this.size = 200 * BLOCK_SIZE + random.below(8) * SECTOR_SIZE;
  }

  async make(below: Below, bytes: Buffer, allocation: 'dynamic' | 'static' = 'dynamic') {
    const head = await this.scratch.engine.deltas.create({
      below,
      virtualSize: this.size,
      allocation,
    });
    this.disks.push({ head, bytes: Buffer.from(bytes) });
  }

  async withVolume<T>(
    delta: DeltaId,
    writable: boolean,
    use: (volume: ReturnType<ScratchEngine['volumeOf']>, handle: number) => Promise<T> | T,
  ): Promise<T> {
    const { volumes } = this.scratch.engine;
    const open = await volumes.acquire(delta, { writable });
    try {
      return await use(this.scratch.volumeOf(open.handle), open.handle);
    } finally {
      volumes.release(open);
    }
  }

  isHead(delta: DeltaId): boolean {
    return this.disks.some(({ head }) => head === delta);
  }

  range(): { offset: number; length: number } {
    const { random, size } = this;
    const unit = random.pick([1, SECTOR_SIZE, BLOCK_SIZE]);
    const offset = Math.floor(random.below(size) / unit) * unit;
    const most = random.pick([SECTOR_SIZE, BLOCK_SIZE, 16 * BLOCK_SIZE, size]);
    const length = Math.max(1, Math.ceil(random.below(most) / unit) * unit);
    return { offset, length: Math.min(length, size - offset) };
  }

  async write(disk: Disk): Promise<void> {
    const { offset, length } = this.range();
    const bytes = this.random.bytes(length);
    await this.withVolume(disk.head, true, (volume) => volume.write(bytes, 0, offset, length));
    bytes.copy(disk.bytes, offset);
  }

  async discard(disk: Disk): Promise<void> {
    const { offset, length } = this.range();
    await this.withVolume(disk.head, true, (volume) => volume.discard(offset, length));
    disk.bytes.fill(0, offset, offset + length);
  }

  async read(delta: DeltaId, bytes: Buffer): Promise<string | undefined> {
    const { offset, length } = this.range();
    return await this.withVolume(delta, this.isHead(delta), (volume) => {
      const found = Buffer.alloc(length, 0xee);
      volume.read(found, 0, offset, length);
      return difference(found, bytes.subarray(offset, offset + length), offset);
    });
  }

  async snapshot(disk: Disk): Promise<void> {
    const { deltas, volumes } = this.scratch.engine;
    const below = { kind: 'delta', id: disk.head } as const;
    const to = await deltas.create({ below, virtualSize: this.size, allocation: 'dynamic' });
    await volumes.switchHeads([{ from: disk.head, to }], () => {});
    this.snapshots.push({ delta: disk.head, bytes: Buffer.from(disk.bytes) });
    disk.head = to;
  }

  async restore(disk: Disk, snapshot: Snapshot): Promise<void> {
    const { deltas, volumes } = this.scratch.engine;
    const below = { kind: 'delta', id: snapshot.delta } as const;
    const to = await deltas.create({ below, virtualSize: this.size, allocation: 'dynamic' });
    await volumes.switchHeads([{ from: disk.head, to }], () => {});
    disk.head = to;
    disk.bytes = Buffer.from(snapshot.bytes);
  }

  async fullClone(snapshot: Snapshot): Promise<void> {
    await this.make({ kind: 'none' }, snapshot.bytes);
    await this.scratch.engine.volumes.copy(snapshot.delta, this.disks.at(-1)!.head, {});
  }

  async collect(): Promise<void> {
    const referenced = new Set([
      ...this.disks.map((disk) => disk.head),
      ...this.snapshots.map((snapshot) => snapshot.delta),
    ]);
    const { deltas } = this.scratch.engine;
    await deltas.collect(referenced, false);
    const reached = new Set(await deltas.list());
    await this.scratch.engine.reclaim({ reached, labelled: referenced });
  }

  /** Every byte of every head and snapshot, read whole. */
  async compareAll(): Promise<string | undefined> {
    const all = [
      ...this.disks.map(({ head, bytes }) => ({ delta: head, bytes })),
      ...this.snapshots,
    ];
    for (const { delta, bytes } of all) {
      const wrong = await this.withVolume(delta, this.isHead(delta), (volume) => {
        const found = Buffer.alloc(this.size, 0xee);
        volume.read(found, 0, 0, this.size);
        return difference(found, bytes, 0) ?? holesAreZero(volume, bytes);
      });
      if (wrong !== undefined) return `${delta}: ${wrong}`;
    }
    return undefined;
  }
}

function difference(found: Buffer, wanted: Buffer, offset: number): string | undefined {
  if (found.equals(wanted)) return undefined;
  const at = found.findIndex((byte, index) => byte !== wanted[index]);
  return `byte ${offset + at} is ${found[at]}, should be ${wanted[at]}`;
}

/** What nextData and nextHole call a hole must read as zero, and they must get to the end. */
function holesAreZero(
  volume: { size: number; nextData(at: number): number; nextHole(at: number): number },
  bytes: Buffer,
): string | undefined {
  let at = 0;
  while (at < volume.size) {
    const data = volume.nextData(at);
    const end = data < 0 ? volume.size : data;
    if (end > at && !isZero(bytes, at, end - at))
      return `what is not zero lies in a hole from ${at} to ${end}`;
    if (data < 0) return undefined;
    at = volume.nextHole(data);
    if (at <= data) return `no data at ${data}, which nextData answered`;
  }
  return undefined;
}

async function step(twin: Twin): Promise<string | undefined> {
  const { random, disks, snapshots } = twin;
  if (snapshots.length > MOST_SNAPSHOTS) snapshots.splice(random.below(snapshots.length), 1);
  if (disks.length > MOST_DISKS) disks.splice(random.below(disks.length), 1);
  const disk = random.pick(disks);
  const dice = random.below(1000);
  if (dice < 420) await twin.write(disk);
  else if (dice < 560) await twin.discard(disk);
  else if (dice < 800) {
    const pool = [...disks.map(({ head, bytes }) => ({ delta: head, bytes })), ...snapshots];
    const { delta, bytes } = random.pick(pool);
    return await twin.read(delta, bytes);
  } else if (dice < 860) await twin.scratch.engine.volumes.flush(disk.head);
  else if (dice < 900) await twin.snapshot(disk);
  else if (dice < 920 && snapshots.length > 0) await twin.restore(disk, random.pick(snapshots));
  else if (dice < 935 && snapshots.length > 0) {
    const { delta, bytes } = random.pick(snapshots);
    await twin.make({ kind: 'delta', id: delta }, bytes);
  } else if (dice < 940 && snapshots.length > 0) await twin.fullClone(random.pick(snapshots));
  else if (dice < 955) snapshots.splice(random.below(snapshots.length || 1), 1);
  else if (dice < 965 && disks.length > 1) disks.splice(disks.indexOf(disk), 1);
  else if (dice < 980) await twin.collect();
  else if (dice < 990) await twin.scratch.reopen();
  else twin.scratch.crash();
  return undefined;
}

for (const kind of KINDS) {
  t.test(`heads and snapshots equal the model (${kind})`, async (t) => {
    const seed = newSeed();
    t.comment(`LAYERDISK_SEED=${seed}`);
    const twin = new Twin(createRandom(seed));
    t.teardown(() => twin.scratch.close());
    const tally = new Tally(t);
    const start = Buffer.alloc(twin.size);
    if (kind === 'base') {
      const id = 'b'.repeat(32);
      // A base may be shorter than the disk on it.
      const base = twin.random.bytes(150 * BLOCK_SIZE + 700);
      for (let block = 0; block < 150; block += 3) base.fill(0, block * 4096, block * 4096 + 4096);
      base.copy(start);
      twin.scratch.bases.set(id, base);
      await twin.make({ kind: 'base', id }, start);
    } else {
      await twin.make({ kind: 'none' }, start, kind === 'static' ? 'static' : 'dynamic');
    }
    for (let i = 0; i < STEPS; i += 1) {
      let wrong = await step(twin);
      if (wrong === undefined && i % 200 === 199) wrong = await twin.compareAll();
      tally.judge(`step ${i}`, wrong);
      if (wrong !== undefined) break;
    }
    t.equal(await twin.compareAll(), undefined);
    t.same(twin.scratch.errors, [], 'no error in the background');
    tally.print({ disks: twin.disks.length, snapshots: twin.snapshots.length });
  });
}
