/** A block index that has grown to its limit: what was refused is nowhere, what was not is kept. */
import t from 'tap';
import { DiskError } from '../../src/common/errors.js';
import { BLOCK_SIZE, MiB } from '../../src/common/units.js';
import { CHUNK_WORDS } from '../../src/engine/shared/chunk-pool.js';
import { ScratchEngine } from '../support/engine.js';

/** Calls until there is no memory. */
function exhaust(take: () => unknown): void {
  for (;;) {
    try {
      take();
    } catch (error) {
      if (error instanceof DiskError && error.errno === 'ENOMEM') return;
      throw error;
    }
  }
}

function fillIndex({ engine }: ScratchEngine): void {
  const { pages, chunks } = engine.context.nodes;
  exhaust(() => pages.allocate());
  for (const size of CHUNK_WORDS.keys()) exhaust(() => chunks.allocate(size));
}

t.test('what cannot be noted in the index is not recorded', async (t) => {
  const scratch = new ScratchEngine();
  t.teardown(() => scratch.close());
  const { deltas, volumes } = scratch.engine;
  const spec = { below: { kind: 'none' }, virtualSize: 64 * MiB, allocation: 'dynamic' } as const;
  const head = await deltas.create(spec);
  const opened = await volumes.acquire(head, { writable: true });
  const volume = scratch.volumeOf(opened.handle);
  const put = (block: number, value: number): void =>
    volume.write(Buffer.alloc(BLOCK_SIZE, value), 0, block * BLOCK_SIZE, BLOCK_SIZE);
  for (let block = 0; block < 10; block += 1) put(block, 1);
  fillIndex(scratch);
  const full = { code: 'failed', errno: 'ENOMEM' };
  t.throws(() => volume.discard(5 * BLOCK_SIZE, BLOCK_SIZE), full);
  t.throws(() => put(9000, 2), full);
  put(5, 3);
  scratch.crash();
  const again = await scratch.engine.volumes.acquire(head, { writable: true });
  const bytes = Buffer.alloc(BLOCK_SIZE);
  const first = (block: number): number => {
    scratch.volumeOf(again.handle).read(bytes, 0, block * BLOCK_SIZE, BLOCK_SIZE);
    return bytes[0]!;
  };
  t.equal(first(5), 3, 'the block that is still there was written to afterwards');
  t.equal(first(4), 1);
  t.equal(first(9000), 0, 'a write that was refused');
  scratch.engine.volumes.release(again);
});
