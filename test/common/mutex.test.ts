/** The locks between asynchronous tasks. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import t from 'tap';
import { Mutex, SharedLock } from '../../src/common/mutex.js';

t.test('a mutex runs tasks one by one, in order, whatever becomes of them', async (t) => {
  const mutex = new Mutex();
  const events: string[] = [];
  const task = (name: string, fails: boolean) => async () => {
    events.push(`${name}+`);
    await nextTurn();
    events.push(`${name}-`);
    if (fails) throw new Error(name);
    return name;
  };
  const all = await Promise.allSettled([
    mutex.run(task('a', false)),
    mutex.run(task('b', true)),
    mutex.run(task('c', false)),
  ]);
  t.same(events, ['a+', 'a-', 'b+', 'b-', 'c+', 'c-']);
  t.same(
    all.map((each) => each.status),
    ['fulfilled', 'rejected', 'fulfilled'],
  );
});

t.test('a shared lock: many readers or one writer, first come, first served', async (t) => {
  const lock = new SharedLock();
  let sharing = 0;
  let most = 0;
  let excluded = false;
  const order: string[] = [];
  const share = (name: string) =>
    lock.shared(async () => {
      order.push(name);
      t.notOk(excluded, `${name} does not meet the writer`);
      sharing += 1;
      most = Math.max(most, sharing);
      await nextTurn();
      sharing -= 1;
    });
  const exclude = (name: string) =>
    lock.exclusive(async () => {
      order.push(name);
      t.equal(sharing, 0, `${name} is alone`);
      excluded = true;
      await nextTurn();
      excluded = false;
    });
  const failing = lock.exclusive(async () => {
    throw new Error('x');
  });
  await Promise.all([
    t.rejects(failing),
    share('a'),
    share('b'),
    exclude('C'),
    share('d'),
    exclude('E'),
    share('f'),
  ]);
  t.same(order, ['a', 'b', 'C', 'd', 'E', 'f'], 'a writer is not overtaken for ever');
  t.equal(most, 2);
});
