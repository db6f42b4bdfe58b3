/** The slice cache and the range sets against plain models. */
import t from 'tap';
import {
  FileRanges,
  firstAbove,
  includesSorted,
  isRepeated,
} from '../../src/formats/file-ranges.js';
import { TableSlices } from '../../src/formats/table-slices.js';
import { createRandom } from '../support/random.js';

t.test('slices hold what was loaded, load once while they fit, and stay bounded', async (t) => {
  const random = createRandom(1);
  let loads = 0;
  const slices = new TableSlices({
    path: 'image',
    sliceCount: 1000,
    sliceSize: 16,
    maxBytes: 16 * 64,
    load: (slice, index) => {
      loads += 1;
      slice.words.fill(index % 2 ** 32);
    },
  });
  for (let index = 0; index < 64; index += 1) slices.get(index);
  for (let index = 63; index >= 0; index -= 1) t.equal(slices.get(index).words[3], index);
  t.equal(loads, 64, 'a table that fits is loaded once');
  const buffers = new Set<ArrayBufferLike>();
  let wrong = 0;
  for (let round = 0; round < 5000; round += 1) {
    const index = random.below(2) === 0 ? random.below(200) : random.below(2 ** 40);
    const slice = slices.get(index);
    buffers.add(slice.words.buffer);
    if (slice.words[0] !== index % 2 ** 32) wrong += 1;
  }
  t.equal(wrong, 0);
  t.ok(buffers.size <= 64, `${buffers.size} slices of memory`);
});

t.test('a slice whose loading fails is not kept', async (t) => {
  let fail = true;
  const slices = new TableSlices({
    path: 'image',
    sliceCount: 1000,
    sliceSize: 4,
    maxBytes: 16,
    load: (slice, index) => {
      slice.words[0] = 77;
      if (fail) throw new Error('no');
      slice.words[0] = index;
    },
  });
  t.throws(() => slices.get(5), /no/);
  t.throws(() => slices.get(5), /no/);
  fail = false;
  t.equal(slices.get(5).words[0], 5);
});

t.test('ranges', async (t) => {
  const ranges = new FileRanges('f', [
    { name: 'b', offset: 100, length: 50 },
    { name: 'a', offset: 0, length: 10 },
    { name: 'none', offset: 5, length: 0 },
  ]);
  const cases: [offset: number, length: number, overlaps: boolean][] = [
    [0, 1, true],
    [9, 1, true],
    [10, 90, false],
    [10, 91, true],
    [149, 1, true],
    [150, 1000, false],
    [0, 1000, true],
  ];
  for (const [offset, length, overlaps] of cases) {
    t.equal(ranges.overlap(offset, length), overlaps, `${offset}+${length}`);
  }
  t.throws(
    () =>
      new FileRanges('disk', [
        { name: 'one', offset: 0, length: 10 },
        { name: 'two', offset: 9, length: 1 },
      ]),
    { code: 'damaged', message: 'disk: two overlaps one' },
  );
});

t.test('sorted values', async (t) => {
  const values = Float64Array.from([1, 3, 3, 3, 8, 8, 2 ** 50]);
  t.equal(firstAbove(values, 0), 0);
  t.equal(firstAbove(values, 3), 4);
  t.equal(firstAbove(values, 2 ** 50), 7);
  t.equal(includesSorted(values, 8), true);
  t.equal(includesSorted(values, 7), false);
  t.equal(includesSorted(new Float64Array(0), 7), false);
  t.strictSame(
    [1, 3, 7, 8, 9].filter((value) => isRepeated(values, value)),
    [3, 8],
  );
});
