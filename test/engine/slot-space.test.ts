/** Segment tables that begin as another volume's. */
import t from 'tap';
import { PagePool } from '../../src/engine/shared/page-pool.js';
import {
  createSharedMemory,
  VOLUME,
  viewSharedMemory,
} from '../../src/engine/shared/shared-memory.js';
import { releaseSegments, SlotSpace } from '../../src/engine/shared/slot-space.js';
import { VolumeRow } from '../../src/engine/shared/volume-row.js';

const views = viewSharedMemory(createSharedMemory(1));

function makeSpace(pool: PagePool, index: number): { space: SlotSpace; row: VolumeRow } {
  const row = new VolumeRow(views, index);
  for (const field of [VOLUME.segmentRoot, VOLUME.slotRoot]) row.set(field, pool.allocate());
  row.set(VOLUME.segmentCount, 0);
  row.set(VOLUME.inheritedSegments, 0);
  return { space: new SlotSpace(views.volumes, pool, index), row };
}

t.test('segments that were freed are used again when there are no others', async (t) => {
  const pool = new PagePool(views);
  const { space, row } = makeSpace(pool, 4);
  const LAST = 2 ** 19 - 1;
  for (let n = 1; n <= LAST; n += 1) space.addSegment(n, 0);
  // As if the first page of the table were a sealed map's.
  row.set(VOLUME.inheritedSegments, 520);
  space.freeSegments(new Set([300, 601, LAST]));
  const again = [space.addSegment(8, 0), space.addSegment(9, 16384)];
  t.same(again, [601 * 8192, LAST * 8192]);
  space.resolve(LAST * 8192 + 3);
  t.same([space.delta, space.slot], [9, 16387]);
  t.throws(() => space.addSegment(10, 0), { code: 'failed', errno: 'ENOSPC' });
  space.resolve(600 * 8192);
  t.equal(space.delta, 600, 'those that are in use stay');
  row.set(VOLUME.inheritedSegments, 0);
  space.release();
  t.equal(pool.bytes, 0);
});

// A page holds 512 segments, of which number 0 is none.
for (const inherited of [0, 1, 510, 511, 512, 1022, 1023, 1500]) {
  t.test(`${inherited} segments inherited`, async (t) => {
    const pool = new PagePool(views);
    const below = makeSpace(pool, 1);
    const addresses: number[] = [];
    for (let n = 0; n < inherited; n += 1) addresses.push(below.space.addSegment(n + 1, n * 8192));
    const before = pool.bytes;

    const spaces = [2, 3].map((index) => makeSpace(pool, index));
    for (const { space, row } of spaces) {
      space.inherit(below.row.get(VOLUME.segmentRoot), inherited);
      const own: number[] = [];
      for (let n = 0; n < 600; n += 1) own.push(space.headAddress(900 + row.index, n * 8192 + 5));
      const wrong = [...addresses.entries()].filter(([n, address]) => {
        space.resolve(address + 17);
        return space.delta !== n + 1 || space.slot !== n * 8192 + 17;
      });
      t.same(wrong, []);
      const wrongOwn = [...own.entries()].filter(([n, address]) => {
        space.resolve(address);
        return space.delta !== 900 + row.index || space.slot !== n * 8192 + 5;
      });
      t.same(wrongOwn, []);
      t.equal(new Set([...addresses, ...own]).size, inherited + 600, 'each its own');
    }
    for (const { space } of spaces) space.release();
    t.equal(pool.bytes, before, 'what was inherited stays');
    releaseSegments(pool, below.row.get(VOLUME.segmentRoot), 0);
    pool.release(below.row.get(VOLUME.slotRoot));
    t.equal(pool.bytes, 0);
  });
}
