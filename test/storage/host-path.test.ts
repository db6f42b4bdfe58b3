/** What is said of a file that is not there: which one, and where to look. */
import { join } from 'node:path';
import t from 'tap';
import { HostFile } from '../../src/storage/host-file.js';
import { fileState, realPath } from '../../src/storage/host-path.js';

t.test('a file that is not there', async (t) => {
  const folder = t.testdir({ file: '' });
  for (const path of [join(folder, 'none.raw'), join(folder, 'file', 'none.raw')]) {
    const said = { code: 'not-found', message: `${path}: no such file` };
    for (const look of [HostFile.open, fileState, realPath]) {
      t.throws(() => look(path), said, `${look.name} ${path}`);
      t.throws(() => look(path), { hint: 'see what there is: ls ' }, 'where files are listed');
    }
  }
});
