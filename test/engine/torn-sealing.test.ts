/** A power cut while a snapshot was sealed, and what goes on with its delta afterwards. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { BLOCK_SIZE } from '../../src/common/units.js';
import { DeltaFiles } from '../../src/engine/delta/delta-files.js';
import {
  HEADER_OFFSETS,
  RECORD_SIZE,
  RECORDS_OFFSET,
} from '../../src/engine/delta/delta-layout.js';
import type { DeltaId } from '../../src/engine/delta-id.js';
import { reclaimDelta } from '../../src/engine/jobs/reclaim.js';
import {
  block,
  changeEpoch,
  loseMirror,
  makeDisk,
  open,
  readBlock,
  SIZE,
  spoil,
} from '../support/power-cut.js';

/**
 * A snapshot that a power cut tore while its delta was sealed: its second record did not arrive.
 */
async function tornSnapshot(t: Test) {
  const { scratch, head: bottom } = await makeDisk(t);
  const { deltas, volumes } = scratch.engine;
  const spec = { virtualSize: SIZE, allocation: 'dynamic' } as const;
  const on = (id: DeltaId) => ({ ...spec, below: { kind: 'delta', id } }) as const;
  const torn = await deltas.create(on(bottom));
  await volumes.switchHeads([{ from: bottom, to: torn }], () => {});
  const volume = await open(scratch, torn);
  volume.write(block(1), 0, 0, BLOCK_SIZE);
  volume.flush();
  const tuples = join(scratch.folder, 'deltas', `${torn}.tuples`);
  const top = await deltas.create(on(torn));
  let before = readFileSync(tuples);
  await volumes.switchHeads([{ from: torn, to: top }], () => {
    // After the flush that goes before, and before the instant.
    volume.write(block(2), 0, BLOCK_SIZE, BLOCK_SIZE);
    before = readFileSync(tuples);
  });
  scratch.crash();
  loseMirror(tuples, before);
  changeEpoch(tuples);
  spoil(tuples, RECORDS_OFFSET + RECORD_SIZE);
  return { scratch, bottom, torn, top, on };
}

for (const read of [false, true]) {
  const what = 'a sealed delta with a torn record may be put on another one';
  t.test(read ? `${what} while somebody reads that snapshot` : what, async (t) => {
    const { scratch, torn, top } = await tornSnapshot(t);
    const spec = { below: { kind: 'none' }, virtualSize: SIZE, allocation: 'dynamic' } as const;
    const other = await scratch.engine.deltas.create(spec);
    if (read) await open(scratch, torn, { writable: false });
    await scratch.engine.volumes.changes.changeBelow(torn, other);
    const volume = await open(scratch, top);
    t.same(readBlock(volume, 0), block(1), 'flushed');
    t.same(readBlock(volume, 1), block(0), 'torn: old');
  });
}

t.test('a torn record of a sealed delta is no damage', async (t) => {
  const { scratch, torn } = await tornSnapshot(t);
  const { findings } = await scratch.engine.health.check({ deltas: [torn], deep: true }, {});
  t.same(findings, []);
});

t.test('giving back counts torn records of the child among those it may go by', async (t) => {
  const { scratch, head, tuples } = await makeDisk(t);
  const { deltas, volumes } = scratch.engine;
  const below = await open(scratch, head);
  for (const index of [0, 1, 2]) below.write(block(1), 0, index * BLOCK_SIZE, BLOCK_SIZE);
  const on = { kind: 'delta', id: head } as const;
  const child = await deltas.create({ below: on, virtualSize: SIZE, allocation: 'dynamic' });
  await volumes.switchHeads([{ from: head, to: child }], () => {});
  const childTuples = tuples.replace(head, child);
  const volume = await open(scratch, child);
  for (const index of [0, 1]) volume.write(block(2), 0, index * BLOCK_SIZE, BLOCK_SIZE);
  const before = readFileSync(childTuples);
  volume.flush();
  scratch.crash();
  loseMirror(childTuples, before);
  changeEpoch(childTuples);
  spoil(childTuples, RECORDS_OFFSET + RECORD_SIZE);
  const again = await open(scratch, child);
  const files = new DeltaFiles(join(scratch.folder, 'deltas'), 'e'.repeat(32));
  const childRecords = files.readHeader(child).current.committedRecords;
  // Somebody may read block 2 below this record: no reader was waited for since.
  again.write(block(3), 0, 2 * BLOCK_SIZE, BLOCK_SIZE);
  again.flush();
  t.equal(await reclaimDelta(files, { delta: head, child, childRecords }), BLOCK_SIZE, 'block 0');
});

t.test('with one header copy alone no record is taken for torn', async (t) => {
  const { scratch, head, tuples } = await makeDisk(t);
  const volume = await open(scratch, head);
  volume.write(block(1), 0, 0, BLOCK_SIZE);
  volume.flush();
  volume.write(block(2), 0, BLOCK_SIZE, BLOCK_SIZE);
  volume.flush();
  scratch.crash();
  const whole = readFileSync(tuples);
  // The second page of the file and the beginning of the third, as one bad place of a disk does.
  const lost = Buffer.from(whole);
  lost.fill(0, HEADER_OFFSETS[1], RECORDS_OFFSET + RECORD_SIZE);
  writeFileSync(tuples, lost);
  await t.rejects(open(scratch, head), { code: 'damaged', message: /tuple 0 is damaged/ });
  t.same(readFileSync(tuples), lost, 'and nothing of it is written over');
  writeFileSync(tuples, whole);
  t.same(readBlock(await open(scratch, head), 0), block(1));
});
