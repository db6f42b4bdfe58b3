/** Tasks at once, and one task for many. */
import t from 'tap';
import { SharedRun, together } from '../../src/common/together.js';

/** A task that ends when it is told to. */
function controlled() {
  let resolve: () => void = () => undefined;
  let reject: (error: Error) => void = () => undefined;
  const promise = new Promise<void>((done, failed) => {
    resolve = done;
    reject = failed;
  });
  return { promise, resolve, reject };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

t.test('answers come in the order of the tasks', async (t) => {
  t.same(await together<[number, string]>([Promise.resolve(1), Promise.resolve('two')]), [
    1,
    'two',
  ]);
  t.same(await together([]), []);
});

t.test('an error is told when all have ended, the first in order', async (t) => {
  const slow = controlled();
  let told: unknown;
  const both = together([slow.promise, Promise.reject(new Error('second'))]).catch((error) => {
    told = error;
  });
  await turn();
  t.equal(told, undefined, 'not while one still runs');
  slow.reject(new Error('first'));
  await both;
  t.match(told, { message: 'first' });
});

t.test('who asks while a run is under way shares the next one', async (t) => {
  const runs: { readonly why: string; readonly end: ReturnType<typeof controlled> }[] = [];
  const shared = new SharedRun((why) => {
    const end = controlled();
    runs.push({ why, end });
    return end.promise;
  });
  const ended: string[] = [];
  const ask = (name: string) =>
    shared.run(name).then(
      () => ended.push(name),
      () => ended.push(`${name} failed`),
    );
  const asked = [ask('a'), ask('b'), ask('c')];
  t.same(
    runs.map(({ why }) => why),
    ['a'],
    'what began before is not enough for the others',
  );
  runs[0]!.end.reject(new Error('a'));
  await turn();
  t.same(ended, ['a failed']);
  t.same(
    runs.map(({ why }) => why),
    ['a', 'b'],
    'one run for both',
  );
  asked.push(ask('d'));
  runs[1]!.end.resolve();
  await turn();
  t.same(ended, ['a failed', 'b', 'c']);
  runs[2]!.end.resolve();
  await Promise.all(asked);
  t.same(ended, ['a failed', 'b', 'c', 'd']);
  t.equal(runs.length, 3);
  const last = ask('e');
  t.equal(runs.length, 4, 'when none is under way it begins at once');
  runs[3]!.end.resolve();
  await last;
});
