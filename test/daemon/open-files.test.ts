/** Counting the opens of disk files. */
import t from 'tap';
import { OpenFiles } from '../../src/daemon/open-files.js';

const NODE = { hi: 7, lo: 20 };
const OTHER = { hi: 7, lo: 21 };

t.test('a file is only direct while all who have opened it since it was closed are', async (t) => {
  const files = new OpenFiles();
  t.notOk(files.isOnlyDirect(NODE), 'nobody has it open');
  await files.enter(NODE, true);
  t.ok(files.isOnlyDirect(NODE));
  await files.enter(OTHER);
  t.ok(files.isOnlyDirect(NODE), 'another file does not matter');
  t.notOk(files.isOnlyDirect(OTHER));

  await files.enter(NODE, false);
  t.notOk(files.isOnlyDirect(NODE));
  files.leave(NODE);
  t.notOk(files.isOnlyDirect(NODE), 'which of the two went is not known');
  files.leave(NODE);
  t.notOk(files.isOnlyDirect(NODE), 'nobody has it open');
  await files.enter(NODE, true);
  t.ok(files.isOnlyDirect(NODE), 'what was before it was closed does not matter');
});

t.test('how a file was opened in the daemon before this one is not known', async (t) => {
  const files = new OpenFiles();
  files.inherit(NODE);
  await files.enter(NODE, true);
  t.notOk(files.isOnlyDirect(NODE));
});
