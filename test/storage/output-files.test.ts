/** Files that are made whole or not at all, and what becomes of the host's errors. */
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { hostCalls } from '../../src/storage/host-calls.js';
import { failure, OutputFiles } from '../../src/storage/output-files.js';
import { tempFolder } from '../support/temp-folder.js';

const CONTENT = Buffer.from('all of it');

/** As where there are no files without names: NFS, FAT. */
function onlyNames(t: Test): void {
  const { createNameless } = hostCalls;
  hostCalls.createNameless = () => undefined;
  t.teardown(() => Object.assign(hostCalls, { createNameless }));
}

for (const nameless of [true, false]) {
  const kind = nameless ? 'without names' : 'with hidden names';
  t.test(`in the making, ${kind}`, async (t) => {
    if (!nameless) onlyNames(t);
    const folder = tempFolder(t);
    const path = join(folder, 'a.raw');
    const other = join(folder, 'a-1.raw');
    const seen = (name: RegExp) =>
      readdirSync(folder)
        .filter((each) => name.test(each))
        .sort();
    const begin = (overwrite: boolean) => {
      const outputs = new OutputFiles(path, { overwrite });
      for (const each of [path, other]) outputs.create(each).write(CONTENT, 0, CONTENT.length, 0);
      return outputs;
    };

    begin(false).discard();
    t.same(seen(/./), [], 'given up: nothing is left');
    const first = begin(false);
    t.equal(seen(/^\.a.*\.part$/).length, nameless ? 0 : 2);
    t.same(seen(/^a/), [], 'nobody sees half a file');
    first.commit();
    first.discard();
    t.same(seen(/./), ['a-1.raw', 'a.raw']);
    t.ok(readFileSync(path).equals(CONTENT));
    t.equal(statSync(path).mode & 0o777, 0o600);
    t.equal(statSync(path).nlink, 1);

    t.throws(() => new OutputFiles(path), { code: 'exists' });
    writeFileSync(path, 'before');
    const second = begin(true);
    t.equal(readFileSync(path, 'utf8'), 'before', 'it is there until the end');
    second.commit();
    t.ok(readFileSync(path).equals(CONTENT), 'replaced');
    t.same(seen(/./), ['a-1.raw', 'a.raw']);
  });

  t.test(`a name that was taken meanwhile, ${kind}`, async (t) => {
    if (!nameless) onlyNames(t);
    const path = join(tempFolder(t), 'a.raw');
    const outputs = new OutputFiles(path);
    outputs.create(path).write(CONTENT, 0, CONTENT.length, 0);
    writeFileSync(path, 'theirs');
    t.throws(() => outputs.commit(), { code: 'exists', hint: /--force/ });
    outputs.discard();
    t.equal(readFileSync(path, 'utf8'), 'theirs');
    t.same(readdirSync(join(path, '..')), ['a.raw']);
  });
}

t.test('errors of the host', async (t) => {
  const rows = [
    ['EACCES', 'not-permitted', undefined],
    ['EPERM', 'not-permitted', undefined],
    ['ENOSPC', 'failed', /make room/],
    ['EFBIG', 'failed', /no file so large: choose another/],
    ['EROFS', 'failed', /read-only: choose another/],
    ['ENAMETOOLONG', 'failed', /shorter/],
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
