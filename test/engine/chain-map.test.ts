/** The chain map against a plain array, at sizes of one to three levels. */
import t from 'tap';
import { ChainMap } from '../../src/engine/shared/chain-map.js';
import {
  DATA,
  levelsFor,
  type MapKind,
  shareEntries,
  UNMAPPED,
  ZERO,
} from '../../src/engine/shared/map-words.js';
import { NodePool } from '../../src/engine/shared/node-pool.js';
import { PagePool } from '../../src/engine/shared/page-pool.js';
import { PAGE_WORDS } from '../../src/engine/shared/shared-memory.js';
import { createRandom, newSeed, type Random } from '../support/random.js';

const LEAF = 1024;

function makePool(): PagePool {
  const memory = new SharedArrayBuffer(256 * 2 ** 20);
  const pages = new Uint32Array(memory);
  return new PagePool({ pages, pageWords: new Int32Array(memory, 0, PAGE_WORDS) });
}

function makeMap(blocks: number, pool = makePool()): { map: ChainMap; pool: PagePool } {
  const place = { root: pool.allocate(), levels: levelsFor(blocks) };
  return { map: new ChainMap(new NodePool(pool), place), pool };
}

/** A second map that begins as the first one is, which is not changed any more. */
function derive(from: ChainMap, pool: PagePool): ChainMap {
  const root = pool.allocate();
  shareEntries(pool.words, from.root * PAGE_WORDS, root * PAGE_WORDS);
  return new ChainMap(new NodePool(pool), { root, levels: from.levels });
}

/** First block where the map is not what the plain array says, -1 for none. */
function difference(map: ChainMap, plain: Float64Array): { wrong: number; data: number } {
  let data = 0;
  for (let at = 0; at < plain.length; at += map.count) {
    map.find(at, plain.length - at);
    for (let i = 0; i < map.count; i += 1) {
      if (wordOf(map, i) !== plain[at + i]) return { wrong: at + i, data };
    }
    if (map.kind === DATA) data += map.count;
  }
  return { wrong: -1, data };
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

/** One random change of a map and of the plain array that says the same. */
function change(random: Random, map: ChainMap, plain: Float64Array): number {
  const { block, count } = randomRange(random, plain.length);
  const kind = random.pick<MapKind>([UNMAPPED, ZERO, DATA, DATA]);
  const address = kind === DATA ? 8192 + random.below(2 ** 31) : 0;
  for (let i = 0; i < count; i += 1) plain[block + i] = kind === DATA ? address + i : kind;
  return map.set(block, count, kind, address);
}

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
      mapped += change(random, map, plain);
      if (step % 40 !== 39) continue;
      const { wrong, data } = difference(map, plain);
      t.equal(wrong, -1, `step ${step}`);
      t.equal(data, mapped, 'the count that set keeps');
    }
    map.release();
    t.equal(pool.bytes, 0, 'all pages come back');
  });
}

/** How far apart addresses are: within two bytes, within three, and so that words are needed. */
const SPREADS = [2 ** 12, 60_000, 2 ** 16, 2 ** 20, 2 ** 24 - 2000, 2 ** 24 + 2000, 2 ** 31];

t.test('leaves of any number of extents, up to a word a block and back', async (t) => {
  const seed = newSeed();
  t.comment(`LAYERDISK_SEED=${seed}`);
  const random = createRandom(seed);
  const blocks = LEAF * 2;
  const { map, pool } = makeMap(blocks);
  const plain = new Float64Array(blocks);
  for (let round = 0; round < 14; round += 1) {
    const most = random.pick([1, 1, 4, 100]);
    const spread = SPREADS[round % SPREADS.length]!;
    const base = 8192 + random.below(2 ** 30);
    let mapped = 0;
    for (let step = 0; step < 1500; step += 1) {
      // Not evenly: leaves that are mapped in part are what most disks have.
      const block = random.below(random.below(20) === 0 ? blocks : blocks / 2);
      const count = Math.min(blocks - block, 1 + random.below(most));
      const data = base + random.below(spread);
      const value = random.pick([UNMAPPED, ZERO, base + block, data, data, data]);
      const kind = value > ZERO ? DATA : (value as MapKind);
      mapped += map.set(block, count, kind, value > ZERO ? value : 0);
      for (let i = 0; i < count; i += 1) plain[block + i] = value > ZERO ? value + i : value;
      if (step % 50 === 0) t.equal(difference(map, plain).wrong, -1, `step ${step}`);
    }
    t.same(difference(map, plain), { wrong: -1, data: mapped }, `round ${round}`);
    for (let leaf = 0; leaf < 2; leaf += 1) {
      map.set(leaf * LEAF, LEAF, DATA, 8192 + leaf * LEAF);
      for (let i = 0; i < LEAF; i += 1) plain[leaf * LEAF + i] = 8192 + leaf * LEAF + i;
    }
    t.equal(pool.bytes, 4096, 'whole runs need no leaves');
    map.set(0, blocks, UNMAPPED);
    plain.fill(UNMAPPED);
  }
});

/** The numbers below `count` in random order. */
function shuffled(random: Random, count: number): Uint32Array {
  const numbers = Uint32Array.from({ length: count }, (_, index) => index);
  for (let at = count - 1; at > 0; at -= 1) {
    const other = random.below(at + 1);
    [numbers[at], numbers[other]] = [numbers[other]!, numbers[at]!];
  }
  return numbers;
}

t.test('blocks here and there', async (t) => {
  const seed = newSeed();
  t.comment(`LAYERDISK_SEED=${seed}`);
  const random = createRandom(seed);
  const leaves = 128;
  const blocks = LEAF * leaves;
  const order = shuffled(random, blocks);
  const { map, pool } = makeMap(blocks);
  const plain = new Float64Array(blocks);
  let grown = 0;
  for (const [done, block] of order.entries()) {
    plain[block] = 8192 + done;
    grown += map.set(block, 1, DATA, 8192 + done);
    if ((done + 1) % (16 * LEAF) !== 0) continue;
    t.same(difference(map, plain), { wrong: -1, data: grown }, `${done + 1} blocks`);
    // Four bytes a block, and what lists and the tree need; more only where a page is not filled.
    const most = Math.max(done + 1, leaves * LEAF * 0.1) * 4 * 1.7 + 32 * 4096;
    t.ok(pool.bytes < most, `${pool.bytes} bytes for ${done + 1} blocks, at most ${most}`);
  }
  map.release();
  t.equal(pool.bytes, 0, 'all pages come back');
});

t.test('addresses that just fit into two or three bytes, or just do not', async (t) => {
  for (const limit of [2 ** 16, 2 ** 24]) {
    for (let distance = limit - 4; distance < limit + 4; distance += 1) {
      for (const count of [1, 3]) {
        for (const later of [false, true]) {
          const { map } = makeMap(LEAF);
          const plain = new Float64Array(LEAF);
          const set = (block: number, blocks: number, address: number) => {
            map.set(block, blocks, DATA, address);
            for (let i = 0; i < blocks; i += 1) plain[block + i] = address + i;
          };
          const far = () => set(501, count, 8192 + distance - count + 1);
          if (!later) far();
          for (let block = 0; block < 400; block += 2) set(block, 1, 8192 + 2 * block);
          set(399, 1, 8192 + limit / 2);
          map.set(600, 1, ZERO);
          plain[600] = ZERO;
          if (later) far();
          const { wrong } = difference(map, plain);
          if (wrong !== -1) t.fail(`${distance}, ${count}, ${later}: block ${wrong}`);
        }
      }
    }
  }
});

t.test('what is written in sequence needs no leaves', async (t) => {
  const { map, pool } = makeMap(LEAF * 8);
  for (let block = 0; block < LEAF * 8; block += 16) map.set(block, 16, DATA, 8192 + block);
  map.find(0, LEAF * 8);
  t.same([map.kind, map.address, map.count], [DATA, 8192, LEAF * 8]);
  t.equal(pool.bytes, 4096);
});

t.test('a map on a sealed one: changes stay its own', async (t) => {
  const seed = newSeed();
  t.comment(`LAYERDISK_SEED=${seed}`);
  const random = createRandom(seed);
  const blocks = 520 * LEAF + 7;
  const { map: sealed, pool } = makeMap(blocks);
  const below = new Float64Array(blocks);
  let mapped = 0;
  for (let step = 0; step < 200; step += 1) mapped += change(random, sealed, below);
  const maps = [derive(sealed, pool), derive(sealed, pool)];
  const third = derive(maps[0]!, pool);
  const plains = maps.map(() => below.slice());
  const grown = maps.map(() => mapped);
  for (let step = 0; step < 300; step += 1) {
    const which = random.below(2);
    // The third one stands on the first, which is sealed by that.
    const map = which === 0 ? third : maps[1]!;
    grown[which]! += change(random, map, plains[which]!);
  }
  t.same(difference(third, plains[0]!), { wrong: -1, data: grown[0] });
  t.same(difference(maps[1]!, plains[1]!), { wrong: -1, data: grown[1] });
  t.same(difference(maps[0]!, below), { wrong: -1, data: mapped });
  t.same(difference(sealed, below), { wrong: -1, data: mapped });
  for (const map of [third, maps[1]!, maps[0]!]) map.release();
  t.same(difference(sealed, below), { wrong: -1, data: mapped }, 'released apart');
  sealed.release();
  t.equal(pool.bytes, 0);
});

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
