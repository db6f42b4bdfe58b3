/**
 * Bases: described once, opened again by their description; and told when a file of theirs has
 * changed.
 */
import {
  appendFileSync,
  chmodSync,
  closeSync,
  copyFileSync,
  linkSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import type { Extent } from '../../src/engine/disk-image.js';
import { describeBase, openBase } from '../../src/formats/base.js';
import { type BaseFingerprint, findChange } from '../../src/formats/fingerprint.js';
import { firstDifference, openDescriptors } from '../conformance/image-suite.js';
import { mergedContent, stampedModel } from '../support/disk-model.js';
import { tempFolder } from '../support/temp-folder.js';
import { writeVdi } from '../support/vdi-writer.js';
import { writeVhd } from '../support/vhd-writer.js';
import { descriptorText, writeMonolithic } from '../support/vmdk-writer.js';

const BASE = stampedModel({ size: 256 * 4096, unitSize: 4096, pattern: 'ddudz', salt: 1 });
const TOP = stampedModel({ size: 256 * 4096, unitSize: 4096, pattern: 'uudzuuu', salt: 2 });
const [BASE_UUID, TOP_UUID] = [
  '00000000-0000-4000-8000-000000000001',
  '00000000-0000-4000-8000-000000000002',
];

function writeChain(folder: string): string {
  writeVdi(join(folder, 'base.vdi'), BASE, { uuid: BASE_UUID });
  const top = join(folder, 'top.vdi');
  writeVdi(top, TOP, { type: 4, uuid: TOP_UUID, parent: BASE_UUID });
  return top;
}

t.test('describe and open', async (t) => {
  const folder = tempFolder(t);
  const before = openDescriptors();
  const { spec, fingerprint, warnings } = describeBase(writeChain(folder));
  t.equal(openDescriptors(), before, 'describing keeps nothing open');
  t.match(spec, {
    id: /^[0-9a-f]{32}$/,
    images: [
      { path: join(folder, 'top.vdi'), format: 'vdi' },
      { path: join(folder, 'base.vdi'), format: 'vdi' },
    ],
    virtualSize: 256 * 4096,
  });
  t.strictSame(warnings, []);
  const merged = mergedContent([TOP, BASE]);
  const units = Array.from({ length: 256 }, (_, unit) =>
    TOP.states[unit] === 'unallocated' ? BASE.states[unit]! : TOP.states[unit]!,
  );
  t.equal(spec.allocatedSize, units.filter((state) => state === 'data').length * 4096);
  const base = openBase(JSON.parse(JSON.stringify(spec)));
  t.teardown(() => base.close());
  const whole = Buffer.alloc(base.virtualSize);
  for (let at = 0; at < whole.length; at += 4096) base.readAt(whole, at, at, 4096);
  t.equal(firstDifference(whole, merged), -1);
  const out: Extent = { state: 'data', length: 0 };
  for (let at = 0; at < whole.length; at += out.length) {
    base.extentAt(at, whole.length - at, out);
    const first = units[at / 4096];
    const run = units.slice(at / 4096, (at + out.length) / 4096);
    t.ok(out.state === first && run.every((state) => state === first), `extent at ${at}`);
  }
  t.match(fingerprint, {
    images: [
      { format: 'vdi', identity: { uuid: TOP_UUID }, files: [{ path: join(folder, 'top.vdi') }] },
      { format: 'vdi', identity: { uuid: BASE_UUID }, files: [{ path: join(folder, 'base.vdi') }] },
    ],
  });
});

t.test('a base that cannot be opened as described', async (t) => {
  const folder = tempFolder(t);
  const before = openDescriptors();
  const { spec } = describeBase(writeChain(folder));
  t.throws(() => openBase({ ...spec, virtualSize: 512 }), {
    code: 'damaged',
    message: /top\.vdi: its disk had 512 bytes when it was imported, now it has 1048576/,
  });
  rmSync(join(folder, 'base.vdi'));
  t.throws(() => openBase(spec), { code: 'not-found', message: /base\.vdi: no such file/ });
  t.equal(openDescriptors(), before);
});

t.test('files of a parent that lie in the folder of the top image', async (t) => {
  const folder = tempFolder(t);
  mkdirSync(join(folder, 'sub'));
  writeFileSync(join(folder, 'base-flat.vmdk'), BASE.content);
  const extents = [`RW ${BASE.size / 512} FLAT "../base-flat.vmdk" 0`];
  const createType = 'monolithicFlat';
  writeFileSync(
    join(folder, 'sub', 'base.vmdk'),
    descriptorText({ createType, cid: '00000007', extents }),
  );
  const top = join(folder, 'top.vmdk');
  const parent = { parentCid: '00000007', parentName: 'sub/base.vmdk' };
  writeMonolithic(top, TOP, { zeroedGrains: true, ...parent });
  const { spec } = describeBase(top);
  t.strictSame(spec.allowFolders, [folder]);
  const base = openBase(spec);
  const whole = Buffer.alloc(base.virtualSize);
  base.readAt(whole, 0, 0, whole.length);
  base.close();
  t.equal(firstDifference(whole, mergedContent([TOP, BASE])), -1);
});

t.test('a disk that ends inside a sector is shown up to its end', async (t) => {
  const folder = tempFolder(t);
  const model = stampedModel({ size: 2 * 4096 + 1000, unitSize: 4096, pattern: 'd', salt: 1 });
  const writers: [string, (path: string) => void][] = [
    ['vdi', (path) => writeVdi(path, model)],
    // Complete: it is read without being asked for extents.
    ['vhd', (path) => writeVhd(path, { model, type: 'fixed' })],
  ];
  for (const [format, write] of writers) {
    const path = join(folder, `odd.${format}`);
    write(path);
    const { spec, warnings } = describeBase(path);
    t.match(warnings, [/9192 bytes is no whole number of sectors: 24 zeroes are added/]);
    const base = openBase(spec);
    t.equal(base.virtualSize, 9216, format);
    const bytes = Buffer.alloc(9216, 0xee);
    base.readAt(bytes, 0, 0, 9216);
    t.ok(bytes.subarray(0, 9192).equals(model.content), 'what it has');
    t.ok(bytes.subarray(9192).equals(Buffer.alloc(24)), 'then zeroes');
    bytes.fill(0xee);
    base.readAt(bytes, 0, 9200, 16);
    t.ok(bytes.subarray(0, 16).equals(Buffer.alloc(16)), 'zeroes alone');
    const extent: Extent = { state: 'data', length: 0 };
    base.extentAt(9192, 24, extent);
    t.strictSame(extent, { state: 'zero', length: 24 });
    base.close();
  }
});

/** A fingerprint that has lain for a while, so that unchanged files are not read again. */
function aged(fingerprint: BaseFingerprint): BaseFingerprint {
  const takenNs = String(BigInt(fingerprint.takenNs) + 3_600_000_000_000n);
  return { ...JSON.parse(JSON.stringify(fingerprint)), takenNs };
}

t.test('changes that do not matter pass', async (t) => {
  const folder = tempFolder(t);
  const top = writeChain(folder);
  const base = join(folder, 'base.vdi');
  // utimes restores whole milliseconds only.
  utimesSync(base, 1000, 1000);
  const fresh = describeBase(top).fingerprint;
  for (const stored of [fresh, aged(fresh)]) {
    t.equal(findChange(stored), undefined, 'nothing');
    chmodSync(base, 0o600);
    t.equal(findChange(stored), undefined, 'mode');
    linkSync(base, join(folder, 'second'));
    t.equal(findChange(stored), undefined, 'link count');
    utimesSync(base, 2000, 1000);
    t.equal(findChange(stored), undefined, 'access time');
    rmSync(join(folder, 'second'));
  }
  const stored = aged(describeBase(top).fingerprint);
  copyFileSync(base, join(folder, 'copy'));
  utimesSync(join(folder, 'copy'), 1000, 1000);
  renameSync(join(folder, 'copy'), base);
  t.equal(findChange(stored), undefined, 'another inode with the same content and time');
});

t.test('changes that matter are told, in one line that names the file', async (t) => {
  const folder = tempFolder(t);
  const top = writeChain(folder);
  const base = join(folder, 'base.vdi');
  utimesSync(base, 1000, 1000);
  const stored = aged(describeBase(top).fingerprint);
  const pristine = join(folder, 'pristine');
  copyFileSync(base, pristine);
  const restore = () => {
    copyFileSync(pristine, base);
    utimesSync(base, 1000, 1000);
  };
  const write = (path: string, offset: number) => {
    const fd = openSync(path, 'r+');
    writeSync(fd, Buffer.from('changed'), 0, 7, offset);
    closeSync(fd);
  };
  const changes: [string, () => void, RegExp][] = [
    ['grown', () => appendFileSync(base, 'x'), /it had \d+ bytes, now it has \d+$/],
    ['cut', () => truncateSync(base, 600), /it had \d+ bytes, now it has 600$/],
    ['touched', () => utimesSync(base, 1000, 2000), /modified 1970-01-01T00:16:40\.000Z, now 1970/],
    [
      'header',
      () => {
        write(base, 392);
        utimesSync(base, 1000, 1000);
      },
      /its content is another/,
    ],
    [
      'end',
      () => {
        write(base, statSync(base).size - 7);
        utimesSync(base, 1000, 1000);
      },
      /content/,
    ],
  ];
  for (const [name, change, message] of changes) {
    restore();
    t.equal(findChange(stored), undefined, `before: ${name}`);
    change();
    const found = findChange(stored);
    t.match(found, message, name);
    t.ok(found?.startsWith(`${base} changed since it was imported: `), name);
  }
  rmSync(base);
  t.throws(() => findChange(stored), { code: 'not-found', message: /base\.vdi: no such file/ });
});

t.test('a change within the tick of the clock is seen', async (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'raw');
  writeFileSync(path, BASE.content);
  const { fingerprint } = describeBase(path);
  const file = fingerprint.images[0]!.files[0]!;
  writeFileSync(path, TOP.content);
  await sleep(10);
  // As if both had happened in one tick: status and times are those of the fingerprint.
  const { mtimeNs, ctimeNs } = statSync(path, { bigint: true });
  const same = { ...file, mtimeNs: String(mtimeNs), ctimeNs: String(ctimeNs) };
  const racy = { ...fingerprint, images: [{ ...fingerprint.images[0]!, files: [same] }] };
  t.match(findChange(racy), /its content is another/);
});

t.test('large files are sampled: beginning, end and between', async (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'raw');
  writeFileSync(path, '');
  truncateSync(path, 1 << 30);
  utimesSync(path, 1000, 1000);
  const stored = aged(describeBase(path).fingerprint);
  const fd = openSync(path, 'r+');
  t.teardown(() => closeSync(fd));
  for (const at of [0, (1 << 19) - 1, (1 << 30) - 1, 1 << 19]) {
    writeSync(fd, Buffer.from([1]), 0, 1, at);
    utimesSync(path, 1000, 1000);
    t.match(findChange(stored), /content is another/, `byte ${at}`);
    writeSync(fd, Buffer.from([0]), 0, 1, at);
    utimesSync(path, 1000, 1000);
    t.equal(findChange(stored), undefined);
  }
});
