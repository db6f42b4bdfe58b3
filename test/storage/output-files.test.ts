/** Files that are made whole or not at all, and what becomes of the host's errors. */
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import t, { type Test } from 'tap';
import { MiB } from '../../src/common/units.js';
import { fileId } from '../../src/storage/file-id.js';
import { hostCalls } from '../../src/storage/host-calls.js';
import { failure, OutputFiles } from '../../src/storage/output-files.js';
import { aroundHostCalls } from '../support/host-faults.js';
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

for (const overwrite of [false, true]) {
  const how = overwrite ? 'replacing' : 'new';
  t.test(`all content, then the names, the main one last, then the folder: ${how}`, async (t) => {
    const path = join(tempFolder(t), 'a.raw');
    const other = join(path, '..', 'a-1.raw');
    const outputs = new OutputFiles(path, { overwrite });
    for (const each of [path, other]) outputs.create(each).write(CONTENT, 0, CONTENT.length, 0);
    const seen: string[] = [];
    t.teardown(
      aroundHostCalls(({ label, args }, run) => {
        const place = label === 'image.sync' ? undefined : args.at(-2);
        seen.push(typeof place === 'string' ? `${label} ${basename(place)}` : label);
        return run();
      }),
    );
    outputs.commit();
    const name = overwrite ? 'image.rename' : 'image.link';
    t.same(
      seen.filter((each) => !/^image.link \./.test(each)),
      ['image.sync', 'image.sync', `${name} a-1.raw`, `${name} a.raw`, 'image.sync-folder'],
    );
  });
}

t.test('where a file has but one name (FAT), it is given by a rename', async (t) => {
  const folder = tempFolder(t);
  onlyNames(t);
  const refuse = aroundHostCalls(({ name }, run) => {
    if (name !== 'link') return run();
    throw Object.assign(new Error('EPERM: link'), { code: 'EPERM' });
  });
  t.teardown(refuse);
  const path = join(folder, 'a.raw');
  const begin = () => {
    const outputs = new OutputFiles(path);
    outputs.create(path).write(CONTENT, 0, CONTENT.length, 0);
    return outputs;
  };
  const late = begin();
  begin().commit();
  t.same(
    readdirSync(folder).filter((each) => !each.startsWith('.')),
    ['a.raw'],
  );
  writeFileSync(path, 'theirs');
  t.throws(() => late.commit(), { code: 'exists' });
  late.discard();
  t.equal(readFileSync(path, 'utf8'), 'theirs');
  t.same(readdirSync(folder), ['a.raw']);
});

t.test('space is taken on hosts without fallocate, too', async (t) => {
  const path = join(tempFolder(t), 'a.raw');
  const outputs = new OutputFiles(path);
  const size = 3 * MiB + 512;
  t.teardown(
    aroundHostCalls(({ name }, run) => {
      if (name !== 'allocate') return run();
      throw Object.assign(new Error('ENOTSUP: fallocate'), { code: 'ENOTSUP' });
    }),
  );
  outputs.create(path).allocate(size);
  outputs.commit();
  const { blocks, size: made } = statSync(path);
  t.equal(made, size);
  t.ok(blocks * 512 >= size, 'no hole');
});

t.test('what belongs to a base image is not replaced', async (t) => {
  const path = join(tempFolder(t), 'a.raw');
  writeFileSync(path, 'base');
  const options = { overwrite: true, spared: new Set([fileId(path) ?? '']) };
  t.throws(() => new OutputFiles(path, options), { code: 'exists', message: /base image/ });
  const beside = new OutputFiles(`${path}.vmdk`, options);
  t.throws(() => beside.create(path), { code: 'exists', message: /base image/ });
  beside.discard();
});

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
