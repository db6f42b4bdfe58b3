/** Paged tables: right entries in bounded memory, also when a page cannot be read. */
import t from 'tap';
import { EntryTable } from '../../src/formats/entry-table.js';
import { createRandom, newSeed } from '../support/random.js';

/** A table whose entry `n` is `3 n + 1`, and that counts what it loads. */
function countingTable(count: number, pageEntries: number, fails: (page: number) => boolean) {
  const loads: number[] = [];
  const table = new EntryTable({
    path: 'image',
    count,
    pageEntries,
    load(page, bytes) {
      loads.push(page);
      // Half of a page is there when the error comes.
      const filled = bytes.length / 4 / (fails(page) ? 2 : 1);
      const entries = new Uint32Array(bytes.buffer, bytes.byteOffset, Math.floor(filled));
      for (let at = 0; at < entries.length; at += 1)
        entries[at] = (page * pageEntries + at) * 3 + 1;
      if (fails(page)) throw new Error(`page ${page}`);
    },
  });
  return { table, loads };
}

t.test('entries, with pages thrown out and failing at random', async (t) => {
  const seed = newSeed();
  const random = createRandom(seed);
  // 16 MiB in pages of 4 MiB: four are kept.
  const pageEntries = 1_048_576;
  const count = pageEntries * 9 + 5;
  let failing = -1;
  const { table, loads } = countingTable(count, pageEntries, (page) => page === failing);
  const wrong: number[] = [];
  for (let round = 0; round < 500; round += 1) {
    failing = random.below(12);
    const index = random.below(count);
    try {
      if (table.get(index) !== index * 3 + 1) wrong.push(index);
    } catch (error) {
      if (!(error instanceof Error) || error.message !== `page ${failing}`) throw error;
    }
  }
  t.strictSame(wrong, [], `seed ${seed}`);
  t.ok(loads.length < 500, 'pages that are kept are not read again');
});

t.test('pages that are kept are read once; the last page may be short', async (t) => {
  const { table, loads } = countingTable(1030, 512, () => false);
  for (const index of [0, 511, 512, 1029, 1, 1024, 600]) t.equal(table.get(index), index * 3 + 1);
  t.strictSame(loads, [0, 1, 2]);
  t.throws(() => table.get(2000), /bug: page 3 of a table of 1030 entries/);
});
