/** What becomes of the host's errors when a file is made. */
import t from 'tap';
import { failure } from '../../src/storage/output-files.js';

t.test('errors of the host', async (t) => {
  const rows = [
    ['EACCES', 'not-permitted', undefined],
    ['EPERM', 'not-permitted', undefined],
    ['ENOSPC', 'failed', /make room/],
    ['EROFS', 'failed', /read-only: choose another/],
    ['EIO', 'failed', undefined],
  ] as const;
  for (const [errno, code, hint] of rows) {
    const error = failure(
      '/x/y',
      'cannot make this file',
      Object.assign(new Error(), { code: errno }),
    );
    t.match(error, { code, errno, message: `/x/y: cannot make this file (${errno})` });
    if (hint === undefined) t.equal(error.hint, undefined);
    else t.match(error.hint, hint);
  }
});
