/** Rows of the volume table: given once, given back, and no more than there are. */
import t from 'tap';
import { RowNumbers } from '../../src/engine/shared/row-numbers.js';
import { MAX_VOLUMES } from '../../src/engine/shared/shared-memory.js';

t.test('whoever gets none takes none', async (t) => {
  const rows = new RowNumbers();
  rows.claim(MAX_VOLUMES - 1);
  const given = new Set(Array.from({ length: MAX_VOLUMES - 1 }, () => rows.take()));
  t.equal(given.size, MAX_VOLUMES - 1);
  for (let tries = 0; tries < 3; tries += 1) t.throws(() => rows.take(), { code: 'busy' });
  t.equal(rows.used, MAX_VOLUMES, 'who goes through all of them stays within the table');
  rows.give(7);
  t.equal(rows.take(), 7);
});
