/** Threads that read a chain map while another one changes it see each block as old or as new. */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import t from 'tap';
import { ChainMap } from '../../src/engine/shared/chain-map.js';
import { DATA, levelsFor, UNMAPPED, ZERO } from '../../src/engine/shared/map-words.js';
import { NodePool } from '../../src/engine/shared/node-pool.js';
import { PagePool } from '../../src/engine/shared/page-pool.js';
import { createSharedMemory, viewSharedMemory } from '../../src/engine/shared/shared-memory.js';
import { createRandom, newSeed, type Random } from '../support/random.js';

const LEAVES = 40;
const BLOCKS = LEAVES * 1024;
/** Addresses of a block differ by multiples of this, more than there are blocks. */
const SPREAD = 2 ** 20;
const FIRST_ADDRESS = 8192;
const CHANGES = 150_000;

function change(map: ChainMap, random: Random): void {
  const block = random.below(BLOCKS);
  const count = Math.min(BLOCKS - block, random.pick([1, 1, 1, 16, 64, 1024, 3000]));
  const dice = random.below(10);
  if (dice === 0) map.set(block, count, UNMAPPED);
  else if (dice === 1) map.set(block, count, ZERO);
  else
    map.set(
      block,
      count,
      DATA,
      FIRST_ADDRESS + block + SPREAD * random.below(random.pick([10, 4000])),
    );
}

t.test('no reader ever sees a node that became another one', async (t) => {
  const seed = newSeed();
  t.comment(`LAYERDISK_SEED=${seed}`);
  const random = createRandom(seed);
  const memory = createSharedMemory(3);
  const views = viewSharedMemory(memory);
  const pages = new PagePool(views);
  const place = { root: pages.allocate(), levels: levelsFor(BLOCKS) };
  const map = new ChainMap(new NodePool(pages, { ...views, self: 0 }), place);
  const stop = new Int32Array(new SharedArrayBuffer(4));
  const readers = [1, 2].map((thread) => {
    const shape = { blocks: BLOCKS, spread: SPREAD, firstAddress: FIRST_ADDRESS };
    const workerData = { memory, place, thread, stop, ...shape };
    return new Worker(new URL('../support/map-reader.mjs', import.meta.url), { workerData });
  });
  await Promise.all(readers.map((reader) => once(reader, 'message')));
  const ends = readers.map((reader) => once(reader, 'message'));
  for (let done = 0; done < CHANGES; done += 1) change(map, random);
  const most = pages.bytes;
  Atomics.store(stop, 0, 1);
  for (const [end] of await Promise.all(ends)) {
    t.ok(end.reads > 0, `${end.reads} reads`);
    t.equal(end.wrong, undefined);
  }
  map.set(0, BLOCKS, ZERO);
  t.ok(most < LEAVES * 8192 + 2 ** 20, `nodes that were replaced come back: ${most} bytes`);
});
