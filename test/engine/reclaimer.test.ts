/** What is decided about the deltas below the labels, where a job on them cannot be done. */
import { ftruncateSync, writeSync } from 'node:fs';
import t from 'tap';
import { BLOCK_SIZE, MiB } from '../../src/common/units.js';
import { DeltaFiles } from '../../src/engine/delta/delta-files.js';
import { RECORD_WRITE } from '../../src/engine/delta/delta-layout.js';
import { type DeltaId, newDeltaId } from '../../src/engine/delta-id.js';
import type { Below } from '../../src/engine/engine.js';
import { Reclaimer } from '../../src/engine/jobs/reclaimer.js';
import { tidyDeltas } from '../../src/engine/jobs/tidy-deltas.js';
import { ScratchEngine } from '../support/engine.js';

const ROW = 3;
/** So many deltas need one address more than there are. */
const SLOT = Math.ceil(2 ** 32 / ROW);

/** A sealed delta that has its one block, of bytes `block + 1`, in `slot`. */
async function sealed(files: DeltaFiles, below: DeltaId | undefined, block: number, slot: number) {
  const id = newDeltaId();
  const under: Below = below === undefined ? { kind: 'none' } : { kind: 'delta', id: below };
  const like = { virtualSize: MiB, allocation: 'dynamic', mappedBlocks: 1 } as const;
  await files.createSealed({ ...like, id, below: under }, async (data) => {
    ftruncateSync(data, (slot + 1) * BLOCK_SIZE);
    writeSync(data, Buffer.alloc(BLOCK_SIZE, block + 1), 0, BLOCK_SIZE, slot * BLOCK_SIZE);
    return [{ kind: RECORD_WRITE, block, count: 1, slot }];
  });
  return id;
}

/** Usual rows, and those that are tried before their deltas are looked through alone. */
for (const length of [ROW, 4 * ROW]) tryTooManySlots(length);

function tryTooManySlots(length: number): void {
  t.test(
    `a row of ${length} with more slots than one delta may have is left alone, and told`,
    async (t) => {
      const scratch = new ScratchEngine();
      t.teardown(() => scratch.close());
      const files = new DeltaFiles(`${scratch.folder}/deltas`, 'e'.repeat(32));
      const row: DeltaId[] = [];
      // As after much that was written and discarded.
      for (let at = 0; at < length; at += 1) row.push(await sealed(files, row.at(-1), 0, SLOT));
      const below = { kind: 'delta', id: row.at(-1)! } as const;
      const spec = { below, virtualSize: MiB, allocation: 'dynamic' } as const;
      const head = await scratch.engine.deltas.create(spec);
      const told: unknown[] = [];
      const reclaimer = new Reclaimer({
        files,
        volumes: scratch.engine.volumes,
        // Looking for slots to give back takes its time, and is not what this is about.
        run: async (order) => (order.job.kind === 'reclaim' ? { bytes: 0 } : tidyDeltas(order)),
        rowLength: ROW,
        room: () => Number.POSITIVE_INFINITY,
        onError: (_what, error) => told.push(error),
      });
      const request = { reached: new Set([...row, head]), labelled: new Set([head]) };
      t.same(await reclaimer.reclaim(request), { bytes: 0, merged: 0, left: false });
      t.match(told, [{ code: 'not-supported', message: /more than 16 TiB/ }]);
      t.equal(told.length, 1);
    },
  );
}

t.test('many small deltas are merged before any is looked through alone', async (t) => {
  const scratch = new ScratchEngine();
  t.teardown(() => scratch.close());
  const files = new DeltaFiles(`${scratch.folder}/deltas`, 'e'.repeat(32));
  const { deltas, volumes } = scratch.engine;
  const blocks = MiB / BLOCK_SIZE;
  const row: DeltaId[] = [];
  for (let count = 0; count < 40; count += 1) row.push(await sealed(files, row.at(-1), count, 0));
  const below = { kind: 'delta', id: row.at(-1)! } as const;
  const head = await deltas.create({ below, virtualSize: MiB, allocation: 'dynamic' });
  const alone = await sealed(files, undefined, 0, 0);
  const ofAnother = await deltas.create({
    below: { kind: 'delta', id: alone },
    virtualSize: MiB,
    allocation: 'dynamic',
  });
  const jobs: string[] = [];
  const reclaimer = new Reclaimer({
    files,
    volumes,
    run: (order) => {
      const { job } = order;
      jobs.push(job.kind === 'reclaim' ? `reclaim ${job.delta}` : job.kind);
      return tidyDeltas(order);
    },
    rowLength: ROW,
    room: () => Number.POSITIVE_INFINITY,
    onError: (what, error) => t.fail(what, { error }),
  });
  const labelled = new Set([head, ofAnother]);
  const reclaim = (...reached: DeltaId[]) =>
    reclaimer.reclaim({ reached: new Set([...reached, alone, ofAnother]), labelled });
  t.same(await reclaim(...row, head), { bytes: 0, merged: 40, left: false });
  t.same(jobs, ['merge', `reclaim ${alone}`], 'others do not wait for another time');
  const made = files.readHeader(head).current.below;
  t.ok(made.kind === 'delta' && !row.includes(made.id));
  const open = await volumes.acquire(head, { writable: false });
  const data = Buffer.alloc(MiB);
  scratch.volumeOf(open.handle).read(data, 0, 0, MiB);
  volumes.release(open);
  const expected = Buffer.concat(
    Array.from({ length: blocks }, (_, at) => Buffer.alloc(BLOCK_SIZE, at < 40 ? at + 1 : 0)),
  );
  t.ok(data.equals(expected));

  t.comment('what is left of them is looked at next');
  jobs.length = 0;
  if (made.kind !== 'delta') return;
  t.match(await reclaim(made.id, head), { merged: 0 });
  t.same(jobs, [`reclaim ${made.id}`]);
});
