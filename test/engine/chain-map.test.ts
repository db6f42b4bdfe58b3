/** The chain map against a plain array, at sizes of one to three levels. */
import t from 'tap';
import {
  ChainMap,
  DATA,
  levelsFor,
  type MapKind,
  UNMAPPED,
  ZERO,
} from '../../src/engine/chain-map.js';
import { PagePool } from '../../src/engine/page-pool.js';
import { PAGE_WORDS } from '../../src/engine/shared-memory.js';
import { createRandom, newSeed, type Random } from '../support/random.js';

const LEAF = 1024;

function makeMap(blocks: number): { map: ChainMap; pool: PagePool } {
  const memory = new SharedArrayBuffer(256 * 2 ** 20);
  const pages = new Uint32Array(memory);
  const pool = new PagePool({ pages, pageWords: new Int32Array(memory, 0, PAGE_WORDS) });
  const map = new ChainMap(pages, pool, { root: pool.allocate(), levels: levelsFor(blocks) });
  return { map, pool };
}

/** Word of the plain array: 0 unmapped, 1 zero, else an address. */
function wordOf(map: ChainMap, index: number): number {
  return map.kind === DATA ? map.address + index : map.kind;
}

function randomRange(random: Random, blocks: number): { block: number; count: number } {
  const unit = random.pick([1, 1, 7, LEAF, LEAF * 512]);
  const block = Math.min(blocks - 1, Math.floor(random.below(blocks) / unit) * unit);
  const most = random.pick([1, 16, LEAF, 5 * LEAF, LEAF * 600]);
  const count = Math.ceil((1 + random.below(most)) / unit) * unit;
  return { block, count: Math.min(count, blocks - block) };
}

t.test('levels', async (t) => {
  t.equal(levelsFor(1), 1);
  t.equal(levelsFor(LEAF * 512), 1, '2 GiB');
  t.equal(levelsFor(LEAF * 512 + 1), 2);
  t.equal(levelsFor(2 ** 34), 3, '64 TiB');
});

for (const leaves of [3, 600, 512 * 3]) {
  t.test(`random ranges over ${leaves} leaves`, async (t) => {
    const seed = newSeed();
    t.comment(`LAYERDISK_SEED=${seed}`);
    const random = createRandom(seed);
    const blocks = leaves * LEAF + 5;
    const { map, pool } = makeMap(blocks);
    const plain = new Float64Array(blocks);
    let mapped = 0;
    for (let step = 0; step < 400; step += 1) {
      const { block, count } = randomRange(random, blocks);
      const kind = random.pick<MapKind>([UNMAPPED, ZERO, DATA, DATA]);
      const address = kind === DATA ? 8192 + random.below(2 ** 31) : 0;
      mapped += map.set(block, count, kind, address);
      for (let i = 0; i < count; i += 1) plain[block + i] = kind === DATA ? address + i : kind;
      if (step % 40 !== 39) continue;
      let wrong = -1;
      let seen = 0;
      for (let at = 0; at < blocks && wrong < 0; at += map.count) {
        map.find(at, blocks - at);
        for (let i = 0; i < map.count; i += 1) {
          if (wordOf(map, i) !== plain[at + i]) wrong = at + i;
        }
        if (map.kind === DATA) seen += map.count;
      }
      t.equal(wrong, -1, `step ${step}`);
      t.equal(seen, mapped, 'the count that set keeps');
    }
    map.release();
    t.equal(pool.bytes, 0, 'all pages come back');
  });
}

t.test('a run is as long as it can be, over leaves and entries', async (t) => {
  const { map } = makeMap(LEAF * 2000);
  map.set(10, LEAF * 1500, DATA, 8192);
  map.find(10, LEAF * 2000 - 10);
  t.same([map.kind, map.address, map.count], [DATA, 8192, LEAF * 1500]);
  map.find(11, 5);
  t.same([map.kind, map.address, map.count], [DATA, 8193, 5], 'cut at the limit');
  map.set(500, 1, ZERO);
  map.find(10, LEAF * 1500);
  t.equal(map.count, 490);
});

t.test('untouched parts cost nothing: 64 TiB zeroed whole takes one page', async (t) => {
  const { map, pool } = makeMap(2 ** 34);
  map.set(0, 2 ** 34, ZERO);
  map.find(2 ** 33, 2 ** 33);
  t.same([map.kind, map.count], [ZERO, 2 ** 33]);
  t.equal(pool.bytes, 4096);
});
