/** Writes that wait for room: which are tried, in what order, and that each is answered once. */
import { constants } from 'node:os';
import t from 'tap';
import { DiskError } from '../../src/common/errors.js';
import type { BlockDevice } from '../../src/engine/block-device.js';
import { isDying } from '../../src/transport/kernel/callers.js';
import { WriteHold } from '../../src/transport/kernel/held-writes.js';
import {
  giveHold,
  MOST_HELD_BYTES,
  MOST_HELD_WRITES,
  makeHoldWords,
  takeHold,
} from '../../src/transport/kernel/hold-budget.js';
import type { HeldWrite } from '../../src/transport/kernel/messages.js';

const { ENOSPC, EIO } = constants.errno;
const BLOCK = 4096;
/** What a write of one block needs: itself, and a block at either edge. */
const NEED = 3 * BLOCK;
const FULL = new DiskError('failed', 'no room', { errno: 'ENOSPC', passing: true });

/** A hold of writes to one disk, which does what `write` and `flush` do. */
function holdOf(does: { write?: () => void; flush?: () => Promise<void> } = {}) {
  const words = makeHoldWords(true);
  const done: string[] = [];
  const told: string[] = [];
  const device = {
    size: 2 ** 30,
    readOnly: false,
    write: (source: Buffer, at: number, offset: number, length: number) => {
      does.write?.();
      done.push(`write ${offset} ${length} ${source[at]}`);
    },
    flushAsync: async () => {
      await does.flush?.();
      done.push('flush');
    },
  } as unknown as BlockDevice;
  const hold = new WriteHold({
    words,
    deviceOf: (handle) => {
      if (handle !== 3) throw new DiskError('usage', 'no such disk', { errno: 'EBADF' });
      return device;
    },
    reply: (unique, errno, body) => {
      done.push(`answer ${unique.lo} ${errno} ${body?.readUInt32LE(0) ?? '-'}`);
      return true;
    },
    onEvent: (level, message) => told.push(`${level}: ${message}`),
  });
  const add = (number: number, more: Partial<HeldWrite> = {}) => {
    const data = new Uint8Array(BLOCK).fill(number);
    takeHold(words, data.length);
    const place = { unique: { lo: number, hi: 0 }, handle: 3, offset: number * BLOCK };
    hold.add({ type: 'held', ...place, data, flush: false, pid: 0, ...more });
  };
  return { hold, add, done, told, words };
}

t.test('in the order in which they came, as long as there is room for the next', async (t) => {
  const { hold, add, done, told, words } = holdOf();
  for (const number of [1, 2, 3]) add(number);
  t.same([hold.writes, hold.bytes], [3, 3 * BLOCK]);
  await hold.retry(() => NEED - 1);
  t.same(done, [], 'its edges may take a block each');
  let left = 2;
  await hold.retry(() => (left-- > 0 ? NEED : 0));
  t.same(done, ['write 4096 4096 1', 'answer 1 0 4096', 'write 8192 4096 2', 'answer 2 0 4096']);
  t.same([hold.writes, hold.bytes], [1, BLOCK]);
  await hold.retry(() => NEED);
  t.same([hold.writes, hold.bytes], [0, 0]);
  t.same([...words], [MOST_HELD_WRITES, MOST_HELD_BYTES], 'their places are free again');
  t.match(told, [/^warning: writes wait for room/, /^info: no write waits any more, after 3 did/]);
  add(4);
  await hold.retry(() => NEED);
  t.match(told.slice(2), [/^warning/, /after 1 did/], 'counted anew');
});

t.test('what still finds no room stays the first', async (t) => {
  let isFull = true;
  const { hold, add, done } = holdOf({
    write: () => {
      if (isFull) throw FULL;
    },
  });
  add(1);
  add(2);
  await hold.retry(() => NEED);
  t.same([hold.writes, done], [2, []]);
  isFull = false;
  await hold.retry(() => NEED);
  t.equal(done[0], 'write 4096 4096 1');
  t.equal(hold.writes, 0);
});

t.test('a failure is the answer to the one that failed, and no other', async (t) => {
  const { hold, add, done, told } = holdOf();
  add(1, { handle: 4 });
  add(2);
  await hold.retry(() => NEED);
  t.same(done, [`answer 1 ${constants.errno.EBADF} -`, 'write 8192 4096 2', 'answer 2 0 4096']);
  t.match(told, [/^warning: writes wait/, /^warning: a write that waited failed: .*no such disk/]);
});

t.test('a synchronous one is durable before it is answered', async (t) => {
  const good = holdOf();
  good.add(1, { flush: true });
  await good.hold.retry(() => NEED);
  t.same(good.done, ['write 4096 4096 1', 'flush', 'answer 1 0 4096']);
  const bad = holdOf({
    flush: async () => {
      throw new DiskError('failed', 'no flush', { errno: 'EIO' });
    },
  });
  bad.add(1, { flush: true });
  await bad.hold.retry(() => NEED);
  t.same(bad.done, ['write 4096 4096 1', `answer 1 ${EIO} -`]);
});

t.test('when the mount goes all are refused, those to come, too, and each once', async (t) => {
  let flushed: () => void = () => {};
  const { hold, add, done, words } = holdOf({
    flush: () =>
      new Promise((resolve) => {
        flushed = resolve;
      }),
  });
  add(1, { flush: true });
  add(2);
  const retried = hold.retry(() => NEED);
  hold.refuseAll();
  add(3);
  flushed();
  await retried;
  t.same(
    done.filter((each) => each.startsWith('answer')),
    [1, 2, 3].map((number) => `answer ${number} ${ENOSPC} -`),
  );
  t.equal(hold.writes, 0);
  t.same([...words], [MOST_HELD_WRITES, MOST_HELD_BYTES]);
});

t.test('no more are held than there are places, nor more bytes', async (t) => {
  t.notOk(takeHold(makeHoldWords(false), 0), 'where none is held');
  const words = makeHoldWords(true);
  for (let taken = 0; taken < MOST_HELD_WRITES; taken += 1) t.ok(takeHold(words, 0));
  t.notOk(takeHold(words, 0));
  t.notOk(takeHold(words, 0), 'a refusal takes no place, and gives none');
  giveHold(words, 0);
  t.ok(takeHold(words, MOST_HELD_BYTES));
  giveHold(words, MOST_HELD_BYTES);
  t.notOk(takeHold(words, MOST_HELD_BYTES + 1));
  t.ok(takeHold(words, MOST_HELD_BYTES));
});

t.test('who is there is not being killed, nor who is not there', async (t) => {
  t.notOk(isDying(process.pid));
  t.notOk(isDying(0));
  t.notOk(isDying(2 ** 22 + 1), 'more than Linux gives out');
});
