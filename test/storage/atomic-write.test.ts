/** Replacing a file: the old content or the new one, never another, and nothing left behind. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { DiskError } from '../../src/common/errors.js';
import { isTemporaryName, prepareFile, replaceFile } from '../../src/storage/atomic-write.js';
import { makeFolder } from '../../src/storage/directories.js';
import { Faults, faultyFiles } from '../support/faults.js';

function scratch(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'layerdisk-atomic-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  return folder;
}

t.test('prepare, then commit or abandon', async (t) => {
  const folder = scratch(t);
  const files = faultyFiles(new Faults());
  const path = join(folder, 'file');
  await replaceFile(files, path, 'old', 'test');
  t.equal(statSync(path).mode & 0o777, 0o600);
  const abandoned = await prepareFile(files, path, 'never', 'test');
  const [temporary] = readdirSync(folder).filter((name) => name !== 'file');
  t.ok(isTemporaryName(temporary ?? ''), 'the new content is known as a temporary one');
  await abandoned.abandon();
  t.same(readdirSync(folder), ['file']);
  const pending = await prepareFile(files, path, 'new', 'test');
  t.equal(readFileSync(path, 'utf8'), 'old', 'nothing changes before the commit');
  pending.commit();
  await pending.settle();
  t.equal(readFileSync(path, 'utf8'), 'new');
  t.same(readdirSync(folder), ['file']);
});

t.test('a failure at each step', async (t) => {
  const expected: [step: string, content: string, hint: RegExp][] = [
    ['test.write', 'old', /cannot write .*file \(EIO\)/],
    ['test.rename', 'old', /cannot write .*file \(EIO\)/],
    ['test.sync-folder', 'new', /is changed, but the host cannot make it durable/],
  ];
  for (const [position, [step, content, message]] of expected.entries()) {
    const folder = scratch(t);
    const faults = new Faults();
    const path = join(folder, 'file');
    writeFileSync(path, 'old');
    faults.arm(position);
    await t.rejects(replaceFile(faultyFiles(faults), path, 'new', 'test'), { message });
    t.equal(faults.steps[position], step);
    t.equal(readFileSync(path, 'utf8'), content, `${step}: content`);
    t.same(readdirSync(folder), ['file'], `${step}: nothing left behind`);
  }
});

t.test('a full disk is named as such', async (t) => {
  const full = { ...faultyFiles(new Faults()) };
  full.writeNew = async () => {
    throw Object.assign(new Error('no'), { code: 'ENOSPC' });
  };
  const failure = await replaceFile(full, join(scratch(t), 'file'), 'x', 'test').catch((e) => e);
  t.ok(failure instanceof DiskError);
  t.match(failure, { code: 'failed', errno: 'ENOSPC', hint: /free some space/ });
});

t.test('folders', async (t) => {
  const folder = scratch(t);
  const deep = join(folder, 'a', 'b', 'c');
  await makeFolder(deep);
  await makeFolder(deep);
  t.equal(statSync(deep).mode & 0o777, 0o700);
  writeFileSync(join(folder, 'file'), '');
  await t.rejects(makeFolder(join(folder, 'file', 'below')), {
    code: 'failed',
    message: /ENOTDIR/,
  });
});
