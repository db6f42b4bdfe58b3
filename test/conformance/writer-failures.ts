/** Writing that comes to nothing: whatever stops it, nothing is left behind. */
import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Test } from 'tap';
import { DiskError } from '../../src/common/errors.js';
import { MiB } from '../../src/common/units.js';
import type { ImageSource } from '../../src/formats/write-image.js';
import { cannotMount, mountOn } from '../support/mount-guard.js';
import { tempFolder } from '../support/temp-folder.js';
import { type WrittenFormat, writeTestImage } from '../support/written-image.js';
import { openDescriptors } from './image-suite.js';

const SIZE = 24 * MiB;

/** A full disk that does not get smaller by compressing. */
function noise(fail?: (offset: number) => void): ImageSource {
  const bytes = randomBytes(MiB);
  return {
    virtualSize: SIZE,
    extentAt(_offset, length, out) {
      out.state = 'data';
      out.length = length;
    },
    readAt(target, targetOffset, offset, length) {
      fail?.(offset);
      bytes.copy(target, targetOffset, 0, length);
    },
  };
}

export function failureSuite(t: Test, capabilities: WrittenFormat): void {
  const name = `image.${capabilities.format}`;
  const write = (folder: string, source: ImageSource, options = {}) =>
    writeTestImage(capabilities, join(folder, name), source, options);

  t.test('a full file system', { skip: cannotMount() }, async (t) => {
    const folder = join(tempFolder(t), 'small');
    await mountOn(t, 'tmpfs', folder, ['-t', 'tmpfs', '-o', 'size=8m']);
    const descriptors = openDescriptors();
    await t.rejects(write(folder, noise()), { name: 'DiskError', errno: 'ENOSPC' });
    t.strictSame(readdirSync(folder), [], 'nothing is left behind');
    t.equal(openDescriptors(), descriptors, 'nothing stays open');
  });

  t.test('cancelled', async (t) => {
    const folder = tempFolder(t);
    let asked = 0;
    const hooks = { cancelled: () => ++asked > 5 };
    await t.rejects(write(folder, noise(), { hooks }), { code: 'interrupted' });
    t.strictSame(readdirSync(folder), [], 'nothing is left behind');
  });

  t.test('a source that cannot be read', async (t) => {
    const folder = tempFolder(t);
    const source = noise((offset) => {
      if (offset >= 3 * MiB) throw new DiskError('damaged', 'a bad sector', { errno: 'EIO' });
    });
    await t.rejects(write(folder, source), { code: 'damaged', message: 'a bad sector' });
    t.strictSame(readdirSync(folder), [], 'nothing is left behind');
  });

  t.test('a file that is there already', async (t) => {
    const folder = tempFolder(t);
    const path = join(folder, name);
    writeFileSync(path, 'precious');
    await t.rejects(write(folder, noise()), { code: 'exists' });
    const hooks = { cancelled: () => true };
    await t.rejects(write(folder, noise(), { hooks, overwrite: true }), { code: 'interrupted' });
    t.equal(readFileSync(path, 'utf8'), 'precious', 'the file is as it was');
    t.strictSame(readdirSync(folder), [name], 'and alone');
    await write(folder, noise(), { overwrite: true });
    t.not(readFileSync(path).length, 'precious'.length, 'replaced when that is allowed');
  });
}
