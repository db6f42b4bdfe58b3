/** Where the marks lie, and when a state begins and ends. */
import t from 'tap';
import { GiB, MiB, TiB } from '../../src/common/units.js';
import { marksFor, stateAfter } from '../../src/daemon/space-watch.js';

t.test('marks', async (t) => {
  const rows: readonly (readonly [total: number, reserve: number, warnBelow: number])[] = [
    [50 * MiB, 0.5 * MiB, 5 * MiB],
    [10 * GiB, 102.4 * MiB, GiB],
    [100 * GiB, 256 * MiB, 5 * GiB],
    [10 * TiB, 256 * MiB, 32 * GiB],
  ];
  for (const [total, reserve, warnBelow] of rows) {
    t.same(marksFor(total), {
      reserve: Math.floor(reserve),
      warnBelow: Math.floor(warnBelow),
    });
  }
  t.same(marksFor(10 * GiB, 2 * GiB), { reserve: 2 * GiB, warnBelow: 4 * GiB }, 'as asked for');
  t.same(marksFor(10 * GiB, 0), { reserve: 0, warnBelow: GiB });
});

t.test('states end a little above where they begin', async (t) => {
  const marks = { reserve: 9 * MiB, warnBelow: 100 * MiB };
  t.equal(stateAfter('plenty', 100 * MiB, marks), 'plenty');
  t.equal(stateAfter('plenty', 100 * MiB - 1, marks), 'low');
  t.equal(stateAfter('low', 109 * MiB, marks), 'low');
  t.equal(stateAfter('low', 111 * MiB, marks), 'plenty');
  t.equal(stateAfter('low', 10 * MiB, marks), 'low');
  t.equal(stateAfter('low', 10 * MiB - 1, marks), 'full');
  t.equal(stateAfter('full', 10.5 * MiB, marks), 'full');
  t.equal(stateAfter('full', 12 * MiB, marks), 'low');
  t.equal(stateAfter('full', 200 * MiB, marks), 'plenty');
  t.equal(stateAfter('plenty', 0, marks), 'full');
});
