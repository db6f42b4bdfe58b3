/** The store's allowance: never more than there was, whatever is under way when somebody looks. */
import t from 'tap';
import { DiskError } from '../../src/common/errors.js';
import { BLOCK_SIZE, TiB } from '../../src/common/units.js';
import { Allowance } from '../../src/engine/shared/allowance.js';
import { ALLOWANCE_WORDS } from '../../src/engine/shared/shared-memory.js';
import { createRandom, newSeed } from '../support/random.js';

/** @param start where both counters stand: they wrap. */
function makeAllowance(start = 0): Allowance {
  const words = new Int32Array(new SharedArrayBuffer(ALLOWANCE_WORDS * 4));
  words[0] = start;
  words[1] = start;
  return new Allowance({ allowance: words });
}

function isRefused(allowance: Allowance, blocks: number): boolean {
  try {
    allowance.take(blocks);
    return false;
  } catch (error) {
    if (error instanceof DiskError && error.errno === 'ENOSPC' && error.passing) return true;
    throw error;
  }
}

t.test('before the first look, and without a reserve, nothing is refused', async (t) => {
  const allowance = makeAllowance();
  t.notOk(isRefused(allowance, 1000));
  t.equal(allowance.left, Number.POSITIVE_INFINITY);
  allowance.publish(() => 0, 0);
  t.notOk(isRefused(allowance, 1000));
  t.equal(allowance.left, 0, 'but it is said');
});

t.test('refused takes leave nothing behind', async (t) => {
  const allowance = makeAllowance();
  allowance.publish(() => 12 * BLOCK_SIZE + 1, 2 * BLOCK_SIZE);
  t.equal(allowance.left, 10 * BLOCK_SIZE);
  t.ok(isRefused(allowance, 11));
  t.notOk(isRefused(allowance, 10));
  t.ok(isRefused(allowance, 1));
  t.equal(allowance.refused, 2);
  t.equal(allowance.left, 0);
  allowance.publish(() => BLOCK_SIZE, 2 * BLOCK_SIZE);
  t.equal(allowance.left, 0, 'less free than the reserve');
});

t.test('a large store has room for all that is free in it', async (t) => {
  for (const start of [0, 2 ** 31 - 500]) {
    const allowance = makeAllowance(start);
    allowance.publish(() => 10 * TiB, TiB);
    t.equal(allowance.left, 9 * TiB);
    t.notOk(isRefused(allowance, 1024));
    t.equal(allowance.left, 9 * TiB - 1024 * BLOCK_SIZE);
    allowance.settle(1024);
    allowance.publish(() => 2 * TiB, TiB);
    t.equal(allowance.left, TiB, 'and of what was more nothing is left when it is gone');
  }
});

t.test('many writers and looks at any moment: the reserve is never touched', async (t) => {
  const seed = newSeed();
  t.comment(`LAYERDISK_SEED=${seed}`);
  const random = createRandom(seed);
  const reserve = 50;
  for (const start of [0, 2 ** 31 - 500, -300]) {
    const allowance = makeAllowance(start);
    let free = 5000;
    const underWay: { blocks: number; isWritten: boolean }[] = [];
    allowance.publish(() => free * BLOCK_SIZE, reserve * BLOCK_SIZE);
    let refused = 0;
    let least = free;
    for (let step = 0; step < 20_000; step += 1) {
      const one = random.below(100);
      if (one < 40) {
        const blocks = 1 + random.below(256);
        if (isRefused(allowance, blocks)) refused += 1;
        else underWay.push({ blocks, isWritten: false });
      } else if (one < 80 && underWay.length > 0) {
        const write = underWay[random.below(underWay.length)];
        if (write !== undefined && !write.isWritten) free -= write.blocks;
        if (write !== undefined) write.isWritten = true;
      } else if (one < 95 && underWay.length > 0) {
        const at = underWay.findIndex(({ isWritten }) => isWritten);
        const [done] = at < 0 ? [] : underWay.splice(at, 1);
        if (done !== undefined) allowance.settle(done.blocks);
      } else if (one < 98) {
        allowance.publish(() => free * BLOCK_SIZE, reserve * BLOCK_SIZE);
      } else {
        free += random.below(300);
      }
      least = Math.min(least, free);
    }
    t.ok(least >= reserve, `from ${start}: ${least} blocks were always free`);
    t.ok(refused > 0);
    for (const { blocks, isWritten } of underWay) {
      if (!isWritten) free -= blocks;
      allowance.settle(blocks);
    }
    allowance.publish(() => free * BLOCK_SIZE, reserve * BLOCK_SIZE);
    t.equal(allowance.left, (free - reserve) * BLOCK_SIZE, 'and a quiet look allows all there is');
  }
});
