/** File names found inside images: what may be followed and what may not. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { DiskError } from '../../src/common/errors.js';
import { quoteName, resolveSibling } from '../../src/formats/sibling-path.js';

const root = realpathSync(mkdtempSync(join(tmpdir(), 'layerdisk-sibling-')));
t.teardown(() => rmSync(root, { recursive: true, force: true }));
const folder = join(root, 'vm');
mkdirSync(join(folder, 'sub'), { recursive: true });
const image = join(folder, 'disk.img');
for (const path of [
  image,
  join(folder, 'a.raw'),
  join(folder, 'sub/b.raw'),
  join(root, 'secret'),
]) {
  writeFileSync(path, 'x');
}
symlinkSync('a.raw', join(folder, 'link.raw'));
symlinkSync('../secret', join(folder, 'escape.raw'));
symlinkSync('..', join(folder, 'up'));
symlinkSync('loop', join(folder, 'loop'));
symlinkSync('vm/disk.img', join(root, 'image-link'));
execFileSync('mkfifo', [join(folder, 'fifo')]);

t.test('accepts regular files in the folder or below it', async (t) => {
  t.equal(resolveSibling(image, 'a.raw'), join(folder, 'a.raw'));
  t.equal(resolveSibling(image, './sub/b.raw'), join(folder, 'sub/b.raw'));
  t.equal(resolveSibling(image, 'sub/../a.raw'), join(folder, 'a.raw'));
  t.equal(resolveSibling(image, join(folder, 'a.raw')), join(folder, 'a.raw'));
  t.equal(resolveSibling(image, 'link.raw'), join(folder, 'a.raw'), 'link resolved');
  t.equal(resolveSibling(join(root, 'image-link'), 'a.raw'), join(folder, 'a.raw'));
});

t.test('accepts files in folders that the user allows', async (t) => {
  t.equal(resolveSibling(image, '../secret', [root]), join(root, 'secret'));
  t.equal(resolveSibling(image, 'escape.raw', [join(folder, 'sub'), root]), join(root, 'secret'));
  t.throws(() => resolveSibling(image, '../secret', [join(folder, 'sub')]), {
    code: 'not-permitted',
  });
  t.throws(() => resolveSibling(image, '../secret', [join(root, 'none')]), { code: 'not-found' });
});

t.test('a folder whose name begins like an allowed one is not allowed', async (t) => {
  for (const name of ['shared', 'shared-not']) {
    mkdirSync(join(root, name));
    writeFileSync(join(root, name, 'b'), 'x');
  }
  const allowed = [join(root, 'shared')];
  t.equal(resolveSibling(image, '../shared/b', allowed), join(root, 'shared/b'));
  t.throws(() => resolveSibling(image, '../shared-not/b', allowed), { code: 'not-permitted' });
});

t.test('refuses everything else by name', async (t) => {
  const cases: [string, string, string][] = [
    ['../secret', 'not-permitted', 'outside the folder'],
    ['escape.raw', 'not-permitted', 'outside the folder'],
    ['up/secret', 'not-permitted', 'outside the folder'],
    ['/etc/passwd', 'not-permitted', 'outside the folder'],
    ['/dev/zero', 'not-permitted', 'outside the folder'],
    ['json:{"driver":"file"}', 'not-permitted', 'protocol'],
    ['nbd://127.0.0.1/x', 'not-permitted', 'protocol'],
    ['file:a.raw', 'not-permitted', 'protocol'],
    ['missing', 'not-found', 'no such file'],
    ['a.raw/x', 'not-found', 'no such file'],
    ['loop', 'failed', 'ELOOP'],
    ['fifo', 'failed', 'not a regular file'],
    ['sub', 'failed', 'not a regular file'],
    ['.', 'not-permitted', 'outside the folder'],
    ['', 'damaged', 'impossible name'],
    ['a\0b', 'damaged', 'impossible name'],
    ['x'.repeat(5000), 'damaged', 'impossible name'],
    ['y'.repeat(300), 'failed', 'ENAMETOOLONG'],
  ];
  for (const [name, code, part] of cases) {
    try {
      resolveSibling(image, name);
      t.fail(`${quoteName(name)} was accepted`);
    } catch (error) {
      t.ok(
        error instanceof DiskError && error.code === code,
        `${quoteName(name)}: ${String(error)}`,
      );
      const message = error instanceof Error ? error.message : '';
      t.ok(message.includes(part) && message.includes(image), message);
      t.notMatch(message, /\n/, 'one line');
    }
  }
});

t.test('shows hostile names on one short line', async (t) => {
  t.equal(quoteName('a\nb\u001b[31m'), '"a\\nb\\u001b[31m"');
  t.equal(quoteName('a\u0085b\u202e'), '"a\\u0085b\\u202e"');
  t.ok(quoteName('x'.repeat(10_000)).length < 200);
});
