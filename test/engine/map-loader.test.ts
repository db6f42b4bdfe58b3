/** A map that was filled with many ranges at a time against one that was filled one by one. */
import t from 'tap';
import { ChainMap } from '../../src/engine/shared/chain-map.js';
import { MapLoader } from '../../src/engine/shared/map-loader.js';
import {
  DATA,
  levelsFor,
  type MapKind,
  UNMAPPED,
  ZERO,
} from '../../src/engine/shared/map-words.js';
import { NodePool } from '../../src/engine/shared/node-pool.js';
import { PagePool } from '../../src/engine/shared/page-pool.js';
import { PAGE_WORDS } from '../../src/engine/shared/shared-memory.js';
import { createRandom, newSeed } from '../support/random.js';

const LEAF = 1024;

function makeMap(blocks: number): { map: ChainMap; pool: PagePool } {
  const memory = new SharedArrayBuffer(64 * 2 ** 20);
  const pages = new Uint32Array(memory);
  const pool = new PagePool({ pages, pageWords: new Int32Array(memory, 0, PAGE_WORDS) });
  const place = { root: pool.allocate(), levels: levelsFor(blocks) };
  return { map: new ChainMap(new NodePool(pool), place), pool };
}

/** The first block where two maps differ, -1 for none. */
function difference(one: ChainMap, other: ChainMap, blocks: number): number {
  for (let at = 0; at < blocks; at += one.count) {
    one.find(at, blocks - at);
    other.find(at, blocks - at);
    const sameAddress = one.kind !== DATA || one.address === other.address;
    if (one.kind !== other.kind || one.count !== other.count || !sameAddress) return at;
  }
  return -1;
}

for (const { title, leaves, most, ranges } of [
  { title: 'small ranges, many in a leaf', leaves: 3, most: 5, ranges: 20_000 },
  { title: 'few in a leaf', leaves: 5000, most: 600, ranges: 3000 },
  { title: 'ranges longer than a leaf among them', leaves: 40, most: 3 * LEAF, ranges: 3000 },
]) {
  t.test(title, async (t) => {
    const seed = newSeed();
    t.comment(`LAYERDISK_SEED=${seed}`);
    const random = createRandom(seed);
    const blocks = leaves * LEAF - 3;
    const { map, pool } = makeMap(blocks);
    const { map: other } = makeMap(blocks);
    let grown = 0;
    for (let round = 0; round < 3; round += 1) {
      // A round begins with what the one before it has left.
      const loader = new MapLoader(map);
      let expected = 0;
      for (let done = 0; done < ranges; done += 1) {
        const block = random.below(blocks);
        const count = Math.min(blocks - block, 1 + random.below(random.pick([1, most])));
        const kind = random.pick<MapKind>([UNMAPPED, ZERO, DATA, DATA, DATA, DATA]);
        const address = kind === DATA ? 8192 + random.below(random.pick([2 ** 16, 2 ** 31])) : 0;
        loader.add(block, count, kind, address);
        expected += other.set(block, count, kind, address);
      }
      const last = loader.finish();
      t.equal(last, expected, 'by how much it grew');
      t.equal(difference(map, other, blocks), -1, `round ${round}`);
      t.equal(new MapLoader(map).finish(), 0, 'nothing more to do');
      grown += last;
    }
    t.ok(grown > 0);
    map.release();
    t.equal(pool.bytes, 0, 'all pages come back');
  });
}
