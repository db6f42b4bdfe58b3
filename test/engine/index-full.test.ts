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

t.test('a disk that nobody uses makes room for another', async (t) => {
  const scratch = new ScratchEngine();
  t.teardown(() => scratch.close());
  const { deltas, volumes } = scratch.engine;
  const spec = { below: { kind: 'none' }, virtualSize: 64 * MiB, allocation: 'dynamic' } as const;
  const heads = [await deltas.create(spec), await deltas.create(spec)] as const;
  for (const [index, head] of heads.entries()) {
    const opened = await volumes.acquire(head, { writable: true });
    const volume = scratch.volumeOf(opened.handle);
    for (let block = 0; block < 9000; block += 3000) {
      volume.write(Buffer.alloc(BLOCK_SIZE, index + 1), 0, block * BLOCK_SIZE, BLOCK_SIZE);
    }
    volumes.release(opened);
    await volumes.close(head);
  }
  const [resting, wanted] = heads;
  const used = await volumes.acquire(resting, { writable: true });
  fillIndex(scratch);
  const full = { code: 'failed', errno: 'ENOMEM' };
  await t.rejects(volumes.acquire(wanted, { writable: true }), full, 'one that is in use stays');
  volumes.release(used);
  const both = [0, 1].map(() => volumes.acquire(wanted, { writable: true }));
  const [one, other] = await Promise.all(both);
  t.equal(one!.handle, other!.handle);
  t.equal(volumes.openCount, 1, 'the other one was closed');
  const bytes = Buffer.alloc(BLOCK_SIZE);
  scratch.volumeOf(one!.handle).read(bytes, 0, 6000 * BLOCK_SIZE, BLOCK_SIZE);
  t.equal(bytes[0], 2);
  for (const opened of [one!, other!]) volumes.release(opened);
});
