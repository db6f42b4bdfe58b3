/** Raw: holes, sizes that are refused, and reads of what the file says. */
import { execFileSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { Extent } from '../../src/engine/disk-image.js';
import { openRaw } from '../../src/formats/raw/raw-image.js';
import { openImage } from '../../src/formats/registry.js';
import { seekData, seekHole } from '../../src/storage/sparse-file.js';
import { imageSuite } from '../conformance/image-suite.js';
import { type DiskModel, stampedModel } from '../support/disk-model.js';
import { tempFolder } from '../support/temp-folder.js';

/** Writes the model's data units into a file of holes. */
function writeSparse(path: string, model: DiskModel): void {
  const fd = openSync(path, 'w');
  for (const [unit, state] of model.states.entries()) {
    if (state !== 'data') continue;
    const at = unit * model.unitSize;
    writeSync(fd, model.content, at, Math.min(model.unitSize, model.size - at), at);
  }
  closeSync(fd);
  truncateSync(path, model.size);
}

t.test('sparse files', async (t) => {
  const folder = tempFolder(t);
  const capabilities = { format: 'raw', zeroExtents: true, unallocatedExtents: false };
  for (const [index, pattern] of ['dzzd', 'd', 'z', 'zd', 'dz'].entries()) {
    const model = stampedModel({ size: 65536 * 9 + 512, unitSize: 65536, pattern, salt: index });
    const path = join(folder, `${index}.raw`);
    writeSparse(path, model);
    imageSuite(t, `pattern ${pattern}`, () => openRaw(path), model, capabilities);
  }
});

t.test('runs are found again after jumping about', async (t) => {
  const path = join(tempFolder(t), 'sparse');
  const model = stampedModel({ size: 1 << 20, unitSize: 65536, pattern: 'dz', salt: 1 });
  writeSparse(path, model);
  const image = openRaw(path);
  t.teardown(() => image.close());
  const out: Extent = { state: 'data', length: 0 };
  for (const [offset, state, length] of [
    [0, 'data', 65536],
    [70000, 'zero', 61072],
    [10, 'data', 65526],
    [983040, 'zero', 65536],
    [65535, 'data', 1],
  ] as const) {
    image.extentAt(offset, image.virtualSize - offset, out);
    t.strictSame(out, { state, length }, `at ${offset}`);
  }
  t.equal(image.info().allocatedSize, 1 << 19);
});

t.test('seeks without a descriptor say: all data', async (t) => {
  t.equal(seekData(-1, 5), 5);
  t.equal(seekHole(-1, 5, 100), 100);
});

t.test('a 64 TiB file of one hole costs nothing; a larger one is refused', async (t) => {
  const path = join(tempFolder(t), 'huge');
  writeFileSync(path, '');
  try {
    execFileSync('truncate', ['-s', '8T', path], { stdio: 'pipe' });
  } catch {
    return t.comment('skipped: no files of 8 TiB on this file system');
  }
  const image = openImage(path);
  t.equal(image.info().allocatedSize, 0);
  const bytes = Buffer.alloc(4096, 1);
  image.readAt(bytes, 0, image.virtualSize - 4096, 4096);
  t.ok(bytes.every((byte) => byte === 0));
  image.close();
});

t.test('what is no disk is refused, by name', async (t) => {
  const folder = tempFolder(t);
  const cases: [string, Buffer | undefined, RegExp, string][] = [
    ['empty', Buffer.alloc(0), /empty is empty/, 'not-supported'],
    ['odd', Buffer.alloc(1000), /odd: 1000 bytes are not a whole number of 512/, 'not-supported'],
    ['missing', undefined, /missing: no such file/, 'not-found'],
  ];
  for (const [name, content, message, code] of cases) {
    const path = join(folder, name);
    if (content !== undefined) writeFileSync(path, content);
    t.throws(() => openImage(path), { name: 'DiskError', code, message }, name);
    t.throws(() => openImage(path, 'raw'), { name: 'DiskError', code, message }, `${name} as raw`);
  }
  mkdirSync(join(folder, 'folder'));
  t.throws(() => openImage(join(folder, 'folder')), { code: 'failed', message: /is a directory/ });
  const fifo = join(folder, 'fifo');
  execFileSync('mkfifo', [fifo]);
  t.throws(() => openImage(fifo), { code: 'failed', message: /not a regular file/ });
  t.throws(() => openImage('/dev/zero'), { code: 'failed', message: /not a regular file/ });
});
