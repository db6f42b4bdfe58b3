/** Where files that a user asks for may be made. */
import t from 'tap';
import { settlePlace } from '../../src/vm/exchange/export-place.js';

t.test('the folder that is missing is named as a shell wants it', async (t) => {
  const place = '/nonexistent/my disks/web.qcow2';
  const rules = { overwrite: false, ownFolders: [], spared: new Set<string>() };
  await t.rejects(settlePlace(place, rules), {
    code: 'not-found',
    message: '/nonexistent/my disks: no such folder',
    hint: "make it first: mkdir -p '/nonexistent/my disks'",
  });
});
