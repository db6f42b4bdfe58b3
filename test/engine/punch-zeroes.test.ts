/** Zeroes that were written give their space back, and nothing else changes. */
import { closeSync, openSync, readFileSync, statSync, writeSync } from 'node:fs';
import t from 'tap';
import { BLOCK_SIZE, MiB } from '../../src/common/units.js';
import { DeltaFiles } from '../../src/engine/delta/delta-files.js';
import type { DeltaId } from '../../src/engine/delta-id.js';
import { sumDeltas } from '../../src/engine/jobs/sum-deltas.js';
import { ScratchEngine } from '../support/engine.js';
import { aroundHostCalls } from '../support/host-faults.js';
import { createRandom, newSeed } from '../support/random.js';

const SIZE = 8 * MiB;

async function writeTo(scratch: ScratchEngine, top: DeltaId, data: Buffer): Promise<void> {
  const open = await scratch.engine.volumes.acquire(top, { writable: true });
  scratch.volumeOf(open.handle).write(data, 0, 0, data.length);
  scratch.engine.volumes.release(open);
  await scratch.engine.volumes.flush(top);
}

async function readAll(scratch: ScratchEngine, top: DeltaId): Promise<Buffer> {
  const open = await scratch.engine.volumes.acquire(top, { writable: false });
  const data = Buffer.alloc(SIZE);
  scratch.volumeOf(open.handle).read(data, 0, 0, SIZE);
  scratch.engine.volumes.release(open);
  return data;
}

/** A sealed delta of `data`, with checksums, under an empty head. */
async function seal(scratch: ScratchEngine, data: Buffer): Promise<DeltaId> {
  const { deltas, volumes } = scratch.engine;
  const spec = { virtualSize: SIZE, allocation: 'dynamic' } as const;
  const from = await deltas.create({ ...spec, below: { kind: 'none' } });
  await writeTo(scratch, from, data);
  const to = await deltas.create({ ...spec, below: { kind: 'delta', id: from } });
  await volumes.switchHeads([{ from, to }], () => {});
  return from;
}

t.test('zeroes of any number and place become holes', async (t) => {
  const scratch = new ScratchEngine();
  t.teardown(() => scratch.close());
  const seed = newSeed();
  t.comment(`LAYERDISK_SEED=${seed}`);
  const random = createRandom(seed);
  const data = Buffer.alloc(SIZE);
  let blocksOfData = 0;
  for (let block = 0; block < SIZE / BLOCK_SIZE; ) {
    const run = 1 + random.below(random.below(3) === 0 ? 400 : 4);
    const end = Math.min(SIZE / BLOCK_SIZE, block + run);
    const isData = random.below(2) === 0;
    // One byte anywhere in a block is enough to keep it.
    for (; block < end; block += 1) {
      if (isData) data[block * BLOCK_SIZE + random.below(BLOCK_SIZE)] = 1 + random.below(255);
      blocksOfData += isData ? 1 : 0;
    }
  }
  const delta = await seal(scratch, data);
  const files = new DeltaFiles(`${scratch.folder}/deltas`, 'e'.repeat(32));
  await sumDeltas(files, { share: 1 });
  const tuples = readFileSync(files.tuplesPath(delta));
  const path = files.dataPath(delta, 1);
  t.ok(statSync(path).blocks * 512 >= SIZE, 'it takes all of its space');
  const progress: number[] = [];
  const { health } = scratch.engine;
  const outcome = await health.compact([delta], { onProgress: (done) => progress.push(done) });
  t.same(outcome.problems, []);
  t.equal(outcome.bytesRead, SIZE);
  t.equal(progress.at(-1), SIZE, 'progress up to the end');
  // The host notes its holes in blocks, too.
  const space = statSync(path).blocks * 512 - blocksOfData * BLOCK_SIZE;
  t.ok(space >= 0 && space < MiB / 4, `what is not zero stays, and ${space} bytes`);
  t.ok((await readAll(scratch, delta)).equals(data), 'no byte has changed');
  t.ok(readFileSync(files.tuplesPath(delta)).equals(tuples), 'nor a tuple');
  const checked = await health.check({ deltas: [delta], deep: true }, {});
  t.same(checked.findings, [], 'the checksums fit');
  t.same(checked.notSummed, [], 'and are there');
  const again = await health.compact([delta], {});
  t.equal(again.bytesRead, blocksOfData * BLOCK_SIZE, 'holes are not read again');
});

t.test('heads and static deltas are left alone', async (t) => {
  const scratch = new ScratchEngine();
  t.teardown(() => scratch.close());
  const { deltas, health } = scratch.engine;
  const spec = { below: { kind: 'none' }, virtualSize: SIZE } as const;
  const head = await deltas.create({ ...spec, allocation: 'dynamic' });
  await writeTo(scratch, head, Buffer.alloc(SIZE));
  const fixed = await deltas.create({ ...spec, allocation: 'static' });
  const to = await deltas.create({
    ...spec,
    below: { kind: 'delta', id: fixed },
    allocation: 'dynamic',
  });
  await scratch.engine.volumes.switchHeads([{ from: fixed, to }], () => {});
  const before = [head, fixed].map((id) => deltas.describe(id).storedSize);
  t.equal((await health.compact([head, fixed], {})).bytesRead, 0);
  t.same(
    [head, fixed].map((id) => deltas.describe(id).storedSize),
    before,
  );
});

t.test('rot that left zeroes is still found', async (t) => {
  const scratch = new ScratchEngine();
  t.teardown(() => scratch.close());
  const delta = await seal(scratch, Buffer.alloc(SIZE, 'data'));
  const files = new DeltaFiles(`${scratch.folder}/deltas`, 'e'.repeat(32));
  await sumDeltas(files, { share: 1 });
  const fd = openSync(files.dataPath(delta, 1), 'r+');
  writeSync(fd, Buffer.alloc(BLOCK_SIZE), 0, BLOCK_SIZE, 7 * BLOCK_SIZE);
  closeSync(fd);
  await scratch.engine.health.compact([delta], {});
  const { findings } = await scratch.engine.health.check({ deltas: [delta], deep: true }, {});
  t.same(
    findings.map(({ part, block }) => ({ part, block })),
    [{ part: 'data', block: 7 }],
  );
});

t.test('what cannot be read stays, is told with its file, and stops nothing else', async (t) => {
  const scratch = new ScratchEngine();
  t.teardown(() => scratch.close());
  const delta = await seal(scratch, Buffer.alloc(SIZE));
  const path = new DeltaFiles(`${scratch.folder}/deltas`, 'e'.repeat(32)).dataPath(delta, 1);
  let reads = 0;
  const restore = aroundHostCalls(({ label }, run) => {
    if (label === 'compact.read' && reads++ === 0) {
      throw Object.assign(new Error('injected'), { code: 'EIO' });
    }
    return run();
  });
  t.teardown(restore);
  const { problems } = await scratch.engine.health.compact([delta], {});
  t.match(problems, [new RegExp(`^${path}: cannot read \\d+ bytes at 0: EIO$`)]);
  t.equal(problems.length, 1);
  t.ok(reads > 1, 'the rest was looked at');
  const left = statSync(path).blocks * 512;
  t.ok(left > 0 && left < SIZE, `${left} bytes stay`);
});
