/** Deltas that are merged under a disk that stays open: it follows, and shows what it did. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { BLOCK_SIZE } from '../../src/common/units.js';
import { DeltaFiles } from '../../src/engine/delta/delta-files.js';
import type { DeltaId } from '../../src/engine/delta-id.js';
import { mergeRow } from '../../src/engine/jobs/merge.js';
import { cacheEpoch } from '../../src/storage/cache-epoch.js';
import { ScratchEngine } from '../support/engine.js';
import { createRandom, newSeed, type Random } from '../support/random.js';

const BLOCKS = 40_000;
const SIZE = BLOCKS * BLOCK_SIZE;

/** A disk that is open all the time, and its model. */
class Disk {
  readonly scratch: ScratchEngine;
  readonly random: Random;
  readonly model = Buffer.alloc(SIZE);
  head: DeltaId;
  readonly #handle: number;

  private constructor(scratch: ScratchEngine, random: Random, head: DeltaId, handle: number) {
    this.scratch = scratch;
    this.random = random;
    this.head = head;
    this.#handle = handle;
  }

  static async create(t: Test, scratch: ScratchEngine, below?: DeltaId): Promise<Disk> {
    const seed = newSeed();
    t.comment(`LAYERDISK_SEED=${seed}`);
    const { engine } = scratch;
    const head = await engine.deltas.create({
      below: below === undefined ? { kind: 'none' } : { kind: 'delta', id: below },
      virtualSize: SIZE,
      allocation: 'dynamic',
    });
    const { handle } = await engine.volumes.acquire(head, { writable: true });
    return new Disk(scratch, createRandom(seed), head, handle);
  }

  get chain(): readonly DeltaId[] {
    return this.scratch.engine.volumes.chainOf({ handle: this.#handle }).deltas;
  }

  get #volume() {
    return this.scratch.volumeOf(this.#handle);
  }

  change(count: number): void {
    for (let change = 0; change < count; change += 1) {
      const first = this.random.below(BLOCKS);
      const length = Math.min(BLOCKS - first, 1 + this.random.below(2)) * BLOCK_SIZE;
      const at = first * BLOCK_SIZE;
      if (this.random.below(5) === 0) {
        this.#volume.discard(at, length);
        this.model.fill(0, at, at + length);
      } else {
        const bytes = this.random.bytes(length);
        this.#volume.write(bytes, 0, at, length);
        bytes.copy(this.model, at);
      }
    }
  }

  /** @returns the delta that is sealed now. */
  async snapshot(below: DeltaId = this.head): Promise<DeltaId> {
    const former = this.head;
    const to = await this.scratch.engine.deltas.create({
      below: { kind: 'delta', id: below },
      virtualSize: SIZE,
      allocation: 'dynamic',
    });
    await this.scratch.engine.volumes.switchHeads([{ from: former, to }], () => {});
    this.head = to;
    return former;
  }

  /** The first byte that is not the model's, -1 for none. */
  get firstWrong(): number {
    const found = Buffer.alloc(SIZE, 0xee);
    this.#volume.read(found, 0, 0, SIZE);
    return found.equals(this.model) ? -1 : found.findIndex((byte, at) => byte !== this.model[at]);
  }

  close(): void {
    this.scratch.engine.volumes.release({ handle: this.#handle });
  }
}

function chainOnDisk({ engine }: ScratchEngine, top: DeltaId): DeltaId[] {
  const chain: DeltaId[] = [];
  for (let id: DeltaId | undefined = top; id !== undefined; ) {
    chain.push(id);
    const { below }: { below: { kind: string; id?: string } } = engine.deltas.describe(id);
    id = below.kind === 'delta' ? below.id : undefined;
  }
  return chain;
}

/** Collects, reclaims, and collects what that made garbage. */
async function collect(scratch: ScratchEngine, labelled: ReadonlySet<DeltaId>): Promise<number> {
  const { deltas } = scratch.engine;
  await deltas.collect(labelled, false);
  const reached = new Set(await deltas.list());
  const { merged } = await scratch.engine.reclaim({ reached, labelled, pressing: true });
  await deltas.collect(labelled, false);
  return merged;
}

/** What shows the same as a row, top first; nothing stands on it yet. */
async function mergeAll({ folder }: ScratchEngine, row: readonly DeltaId[]): Promise<DeltaId> {
  const deltas = join(folder, 'deltas');
  const files = new DeltaFiles(deltas, cacheEpoch(deltas));
  return await mergeRow(files, { row: [...row].reverse(), pressing: true });
}

function open(t: Test): ScratchEngine {
  const scratch = new ScratchEngine();
  t.teardown(() => scratch.close());
  return scratch;
}

t.test('a disk in use lets what was merged go', async (t) => {
  const scratch = open(t);
  const disk = await Disk.create(t, scratch);
  let merged = 0;
  let most = 0;
  for (let round = 0; round < 60; round += 1) {
    disk.change(40);
    const last = await disk.snapshot();
    merged += await collect(scratch, new Set([last, disk.head]));
    if (round % 10 === 9) t.equal(disk.firstWrong, -1, `after round ${round}`);
    most = Math.max(most, (await scratch.engine.deltas.list()).length);
  }
  t.ok(merged >= 40, `${merged} deltas were merged`);
  t.ok(most < 14, `at most ${most} deltas were kept`);
  t.same(disk.chain, chainOnDisk(scratch, disk.head));
  t.same(scratch.errors, []);
  disk.close();
  await scratch.reopen();
});

t.test('so do its snapshots and clones that are in use', async (t) => {
  const scratch = open(t);
  const { volumes } = scratch.engine;
  const disk = await Disk.create(t, scratch);
  const labelled: DeltaId[] = [];
  for (let round = 0; round < 9; round += 1) {
    disk.change(60);
    labelled.push(await disk.snapshot());
  }
  const top = labelled.at(-1)!;
  const model = Buffer.from(disk.model);
  const view = await volumes.acquire(top, { writable: false });
  const clone = await Disk.create(t, scratch, top);
  disk.model.copy(clone.model);
  clone.change(50);
  disk.change(50);
  t.ok((await collect(scratch, new Set([top, disk.head, clone.head]))) >= 3);
  for (const each of [disk, clone]) {
    t.same(each.chain, chainOnDisk(scratch, each.head));
    t.equal(each.firstWrong, -1);
    each.change(100);
    t.equal(each.firstWrong, -1);
  }
  t.same(volumes.chainOf(view).deltas, chainOnDisk(scratch, top));
  const found = Buffer.alloc(SIZE);
  scratch.volumeOf(view.handle).read(found, 0, 0, SIZE);
  t.ok(found.equals(model));
  volumes.release(view);
  for (const each of [disk, clone]) each.close();
  await scratch.reopen();
  await collect(scratch, new Set([top, disk.head, clone.head]));
  t.ok((await scratch.engine.deltas.list()).length < 9, 'closed, nothing of it stays');
});

t.test('what is broken off, or fails, is done the next time', async (t) => {
  const scratch = open(t);
  const disk = await Disk.create(t, scratch);
  for (let round = 0; round < 6; round += 1) {
    // So many records that others are let in between.
    disk.change(4000);
    await disk.snapshot();
  }
  const { deltas, volumes } = scratch.engine;
  const labelled = new Set([disk.head]);
  const reached = new Set(await deltas.list());
  const before = disk.chain.length;
  await scratch.engine.reclaim({ reached, labelled, pressing: true });
  t.same(disk.chain, chainOnDisk(scratch, disk.head));
  t.ok(disk.chain.length < before);
  t.equal(disk.firstWrong, -1);

  for (let round = 0; round < 4; round += 1) {
    disk.change(4000);
    await disk.snapshot();
  }
  const row = disk.chain.slice(1);
  const made = await mergeAll(scratch, row);
  await volumes.changes.replaceRow(disk.head, [...row].reverse(), made);
  await volumes.changes.follow(AbortSignal.abort());
  t.ok(disk.chain.includes(made) && disk.chain.includes(row[0]!), 'half way');
  t.equal(disk.firstWrong, -1);
  disk.change(500);
  const sealed = await disk.snapshot();
  disk.change(500);
  await volumes.changes.follow();
  t.same(disk.chain, [disk.head, sealed, made]);
  t.equal(disk.firstWrong, -1);
  disk.close();
  await scratch.reopen();
});

t.test('a restore while it follows', async (t) => {
  const scratch = open(t);
  const { volumes } = scratch.engine;
  const disk = await Disk.create(t, scratch);
  disk.change(1000);
  const first = await disk.snapshot();
  const model = Buffer.from(disk.model);
  for (let round = 0; round < 4; round += 1) {
    disk.change(6000);
    await disk.snapshot();
  }
  const row = disk.chain.slice(1, -1);
  const made = await mergeAll(scratch, row);
  await volumes.changes.replaceRow(disk.head, [...row].reverse(), made);
  const following = volumes.changes.follow();
  await setImmediate();
  t.ok(disk.chain.includes(made) && disk.chain.includes(row[0]!), 'it is under way');
  await disk.snapshot(first);
  model.copy(disk.model);
  disk.change(100);
  await following;
  t.same(disk.chain, [disk.head, first]);
  t.equal(disk.firstWrong, -1);
  disk.close();
  await scratch.reopen();
});

t.test('reads of what was merged are verified as before', async (t) => {
  const scratch = new ScratchEngine({ verifyReads: true });
  t.teardown(() => scratch.close());
  const disk = await Disk.create(t, scratch);
  for (let round = 0; round < 4; round += 1) {
    disk.change(20);
    await disk.snapshot();
  }
  t.equal(await collect(scratch, new Set([disk.head])), 4);
  t.equal(disk.firstWrong, -1);
  const [, made] = disk.chain;
  const data = new DeltaFiles(join(scratch.folder, 'deltas'), '').dataPath(made!, 1);
  const bytes = readFileSync(data);
  bytes[BLOCK_SIZE + 9]! ^= 1;
  writeFileSync(data, bytes);
  t.throws(() => disk.firstWrong, { code: 'damaged', errno: 'EIO' });
});
