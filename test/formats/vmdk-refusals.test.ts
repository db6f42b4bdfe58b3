/** VMDK: what is refused, by name, and damage that fails the reads of its own range alone. */
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { describeBase, ImageBase } from '../../src/formats/base.js';
import { openChain } from '../../src/formats/open-chain.js';
import { openVmdk, probeVmdk } from '../../src/formats/vmdk/vmdk-image.js';
import { openDescriptors } from '../conformance/image-suite.js';
import { type DiskModel, stampedModel } from '../support/disk-model.js';
import { tempFolder } from '../support/temp-folder.js';
import {
  buildCowd,
  buildSeSparse,
  buildSparse,
  descriptorText,
  writeMonolithic,
} from '../support/vmdk-writer.js';

const GRAIN = 65536;
const MODEL = stampedModel({ size: GRAIN * 8, unitSize: GRAIN, pattern: 'dud', salt: 1 });
/** Where `writeMonolithic` puts the directory: after the header and the descriptor. */
const DIRECTORY = 21 * 512;

type Damage = (file: Buffer) => void;

/**
 * Reads sector by sector; answers those that failed, and fails the test where one is wrong without
 * failing.
 */
function failedSectors(t: Test, path: string, model: DiskModel): number[] {
  const base = new ImageBase([openVmdk(path)]);
  const failed: number[] = [];
  const bytes = Buffer.alloc(512);
  for (let at = 0; at < model.size; at += 512) {
    try {
      base.readAt(bytes, 0, at, 512);
      if (!bytes.equals(model.content.subarray(at, at + 512))) t.fail(`wrong bytes at ${at}`);
    } catch (error) {
      t.match(error, { name: 'DiskError', code: 'damaged', errno: 'EIO' });
      failed.push(at);
    }
  }
  base.close();
  return failed;
}

/** The sectors of a range of the disk. */
function sectors(start: number, end: number): number[] {
  return Array.from({ length: (end - start) / 512 }, (_, index) => start + index * 512);
}

t.test('headers that make no sense', async (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'bad.vmdk');
  const before = openDescriptors();
  const cases: [string, Damage, RegExp][] = [
    ['version', (file) => file.writeUInt32LE(4, 4), /version 4 is not supported/],
    ['flags', (file) => file.writeUInt32LE(0x80000003, 8), /flag 0x80000000 is not supported/],
    ['capacity', (file) => file.writeBigUInt64LE(1n << 60n, 12), /capacity is \d+, .*out of range/],
    [
      'capacity 2^40',
      (file) => file.writeBigUInt64LE(1n << 40n, 12),
      /not from 1 sector to 64 TiB/,
    ],
    [
      'short capacity',
      (file) => file.writeBigUInt64LE(1000n, 12),
      /says 1024 sectors, the header 1000/,
    ],
    ['grain 3', (file) => file.writeBigUInt64LE(3n, 20), /grain size of 1536 bytes is not a power/],
    ['grain 2^40', (file) => file.writeBigUInt64LE(1n << 40n, 20), /grain size of/],
    [
      'no descriptor',
      (file) => file.writeBigUInt64LE(0n, 28),
      /an extent of a VMDK, without its desc/,
    ],
    [
      'descriptor size',
      (file) => file.writeBigUInt64LE(1n << 30n, 36),
      /descriptor of \d+ bytes is not/,
    ],
    ['descriptor place', (file) => file.writeBigUInt64LE(1n << 30n, 28), /lies past the end/],
    ['no entries', (file) => file.writeUInt32LE(0, 44), /tables of 0 entries are not from 64/],
    ['entries', (file) => file.writeUInt32LE(8192, 44), /tables of 8192 entries/],
    ['directory', (file) => file.writeBigUInt64LE(1n << 30n, 56), /directory at .* is not inside/],
    ['no directory', (file) => file.writeBigUInt64LE(0n, 56), /directory at 0/],
    ['line ends', (file) => file.write('\n \n\n', 73), /line ends were changed/],
    ['compression', (file) => file.writeUInt16LE(1, 77), /compression 1 with these flags/],
    [
      'no markers',
      (file) => {
        file.writeUInt32LE(0x10003, 8);
        file.writeUInt16LE(1, 77);
      },
      /without markers/,
    ],
  ];
  for (const [name, damage, message] of cases) {
    writeMonolithic(path, MODEL);
    const file = readFileSync(path);
    damage(file);
    writeFileSync(path, file);
    t.throws(() => openVmdk(path), { name: 'DiskError', message }, name);
  }
  t.equal(openDescriptors(), before);
});

t.test('streams that are cut off or contradict themselves', async (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'stream.vmdk');
  const packed = stampedModel({ size: GRAIN * 8, unitSize: GRAIN, pattern: 'du', salt: 1 });
  const cases: [string, (file: Buffer) => Buffer, RegExp][] = [
    [
      'cut',
      (file) => file.subarray(0, file.length - 512),
      /footer is missing: the file is cut off/,
    ],
    ['head only', (file) => file.subarray(0, 21 * 512), /footer is missing/],
    [
      'footer',
      (file) => {
        file.writeBigUInt64LE(9n, file.length - 1024 + 12);
        return file;
      },
      /contradict/,
    ],
    [
      'ring',
      (file) => {
        file.fill(255, file.length - 1024 + 56, file.length - 1024 + 64);
        return file;
      },
      /contradict/,
    ],
  ];
  for (const [name, damage, message] of cases) {
    writeMonolithic(path, packed, { stream: 'end' });
    writeFileSync(path, damage(readFileSync(path)));
    t.throws(() => openVmdk(path), { code: 'damaged', message }, name);
  }
});

t.test('a grain that is not where it should be fails alone', async (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'bad.vmdk');
  writeMonolithic(path, MODEL);
  const file = readFileSync(path);
  const table = file.readUInt32LE(DIRECTORY) * 512;
  file.writeUInt32LE(0x7fffffff, table + 2 * 4);
  writeFileSync(path, file);
  t.strictSame(failedSectors(t, path, MODEL), sectors(2 * GRAIN, 3 * GRAIN));
  file.writeUInt32LE(1, table + 2 * 4);
  writeFileSync(path, file);
  t.strictSame(failedSectors(t, path, MODEL), sectors(2 * GRAIN, 3 * GRAIN), 'in the descriptor');

  // Grains lie in reverse order, so the end of the file belongs to grain 0.
  writeMonolithic(path, MODEL);
  const tableAt = readFileSync(path).readUInt32LE(DIRECTORY) * 512;
  const whole = readFileSync(path);
  const grainZero = whole.readUInt32LE(tableAt) * 512;
  whole.writeUInt32LE((whole.length - 512) / 512, tableAt);
  writeFileSync(path, whole);
  t.ok(grainZero < whole.length);
  const failed = failedSectors(t, path, { ...MODEL, content: shifted(MODEL, whole) });
  t.strictSame(failed, sectors(512, GRAIN), 'all but the one sector that is there');
});

/** The model whose grain 0 is the file's last sector. */
function shifted(model: DiskModel, file: Buffer): Buffer {
  const content = Buffer.from(model.content);
  file.copy(content, 0, file.length - 512);
  return content;
}

t.test('a grain table past the end fails its grains alone', async (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'bad.vmdk');
  const model = stampedModel({ size: 512 * 256, unitSize: 512, pattern: 'd', salt: 1 });
  writeMonolithic(path, model, { entriesPerTable: 64 });
  const file = readFileSync(path);
  file.writeUInt32LE(0x7fffffff, DIRECTORY + 2 * 4);
  writeFileSync(path, file);
  t.strictSame(failedSectors(t, path, model), sectors(512 * 128, 512 * 192));
  const { spec } = describeBase(path);
  t.equal(
    spec.allocatedSize,
    model.size,
    'the rest can still be imported; what is lost counts as data',
  );
});

t.test('packed grains that are not what their marker says', async (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'stream.vmdk');
  const packed = stampedModel({ size: GRAIN * 4, unitSize: GRAIN, pattern: 'd', salt: 1 });
  const damages: [string, (file: Buffer, grain: number) => void][] = [
    ['another sector', (file, grain) => file.writeBigUInt64LE(0n, grain)],
    ['size 0', (file, grain) => file.writeUInt32LE(0, grain + 8)],
    ['huge', (file, grain) => file.writeUInt32LE(0xffffffff, grain + 8)],
    ['short', (file, grain) => file.writeUInt32LE(20, grain + 8)],
    ['garbage', (file, grain) => file.fill(0xaa, grain + 12, grain + 500)],
  ];
  for (const [name, damage] of damages) {
    writeMonolithic(path, packed, { stream: 'start' });
    const file = readFileSync(path);
    const table = file.readUInt32LE(DIRECTORY) * 512;
    damage(file, file.readUInt32LE(table + 4) * 512);
    writeFileSync(path, file);
    t.strictSame(failedSectors(t, path, packed), sectors(GRAIN, 2 * GRAIN), name);
  }
});

t.test('descriptors that are not followed', async (t) => {
  const folder = tempFolder(t);
  const outside = tempFolder(t);
  const path = join(folder, 'disk.vmdk');
  writeFileSync(join(outside, 'secret'), Buffer.alloc(4096));
  symlinkSync(join(outside, 'secret'), join(folder, 'link'));
  mkdirSync(join(folder, 'folder'));
  const cases: [string, RegExp, string][] = [
    ['RW 8 FLAT "/etc/passwd" 0', /"\/etc\/passwd", which lies outside/, 'not-permitted'],
    ['RW 8 FLAT "link" 0', /"link", which lies outside/, 'not-permitted'],
    ['RW 8 FLAT "nbd:host:10809" 0', /is a protocol/, 'not-permitted'],
    ['RW 8 FLAT "folder" 0', /not a regular file/, 'failed'],
    ['RW 8 FLAT "missing" 0', /no such file/, 'not-found'],
    ['RW 8 FLAT', /type FLAT without a file/, 'damaged'],
    ['RW 8 SPARSE "disk.vmdk"', /too short for a VMDK header/, 'damaged'],
    ['RW 8 VMFSRDM "x"', /type VMFSRDM is not supported/, 'not-supported'],
    ['NOACCESS 8 ZERO', /without access/, 'not-supported'],
    ['RW -8 FLAT "x" 0', /line 10 of the VMDK descriptor is not understood: "RW -8/, 'damaged'],
    ['RW 99999999999999 ZERO', /is not understood/, 'damaged'],
    ['nonsense', /is not understood: "nonsense"/, 'damaged'],
  ];
  for (const [line, message, code] of cases) {
    writeFileSync(path, descriptorText({ createType: 'custom', extents: [line] }));
    t.throws(() => openVmdk(path), { name: 'DiskError', code, message }, line);
  }
  writeFileSync(path, descriptorText({ createType: 'custom', extents: ['RW 8 FLAT "link" 0'] }));
  const image = openVmdk(path, { allowFolders: [outside] });
  t.equal(image.virtualSize, 4096, 'an allowed folder');
  image.close();
});

t.test('fields of the descriptor', async (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'disk.vmdk');
  const text = descriptorText({ createType: 'custom', extents: ['RW 8 ZERO'] });
  const cases: [string, string, RegExp][] = [
    ['version=1', 'version=9', /unknown version 9/],
    ['version=1', '', /has no version/],
    ['CID=1234abcd', '', /CID is missing/],
    ['CID=1234abcd', 'CID=xyz', /CID is "xyz", no number/],
    ['encoding="UTF-8"', 'encoding="klingon"\n# \xfc', /text encoding "klingon" is unknown/],
  ];
  for (const [from, to, message] of cases) {
    writeFileSync(path, text.replace(from, to));
    t.throws(() => openVmdk(path), { name: 'DiskError', message }, to);
  }
  writeFileSync(path, text + 'RW 1 ZERO\n'.repeat(4096));
  t.throws(() => openVmdk(path), { code: 'not-supported', message: /4097 extents/ });
  writeFileSync(path, text + '#'.repeat(1 << 20));
  t.throws(() => openVmdk(path), { code: 'damaged', message: /above the limit of 1 MiB/ });
  t.notOk(probeVmdk(Buffer.alloc(0)) || probeVmdk(Buffer.from('# Disk')));
});

t.test('a parent that is not named must be given, and is checked', async (t) => {
  const folder = tempFolder(t);
  const [path, parent, other] = ['top.vmdk', 'base.vmdk', 'other.vmdk'].map((name) =>
    join(folder, name),
  ) as [string, string, string];
  writeMonolithic(path, MODEL, { parentCid: '1' });
  writeMonolithic(parent, MODEL, { cid: '00000001' });
  writeMonolithic(other, MODEL, { cid: '00000002' });
  t.throws(() => openChain(path), {
    code: 'not-found',
    message: /top\.vmdk: it does not say which file its parent is/,
    hint: /--parent FILE/,
  });
  const images = openChain(path, { parent });
  t.strictSame(
    images.map((image) => image.path),
    [path, parent],
  );
  for (const image of images) image.close();
  t.throws(() => openChain(path, { parent: other }), { code: 'damaged', message: /CID 00000001/ });
});

t.test('parents outside the folder', async (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'child.vmdk');
  writeMonolithic(path, MODEL, { parentCid: '1', parentName: '/etc/passwd' });
  t.throws(() => openChain(path), {
    code: 'not-permitted',
    message: /its parent may not be opened; tried "\/etc\/passwd" \(not a file in the folder/,
  });
  writeMonolithic(path, MODEL, { parentCid: '1', parentName: 'D:\\disks\\gone.vmdk' });
  t.throws(() => openChain(path), { code: 'not-found', message: /\(a Windows path\).*gone\.vmdk/ });
});

t.test('a parent without a magic is not taken as raw unless somebody says so', async (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'child.vmdk');
  writeFileSync(join(folder, 'parent.img'), MODEL.content);
  writeMonolithic(path, MODEL, { parentCid: '1', parentName: 'parent.img' });
  t.throws(() => openChain(path), {
    code: 'not-supported',
    message: /its parent .*parent\.img is of no known format/,
    hint: /--parent .*parent\.img/,
  });
  // Said to be raw it is opened; but a VMDK knows that its parent is a VMDK.
  t.throws(() => openChain(path, { parent: join(folder, 'parent.img') }), {
    code: 'damaged',
    message: /parent\.img is raw/,
  });
});

t.test('extents given without their descriptor', async (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'x-s001.vmdk');
  const se = stampedModel({ size: 8192, unitSize: 4096, pattern: 'd', salt: 1 });
  for (const extent of [buildSparse(MODEL), buildCowd(se), buildSeSparse(se)]) {
    t.ok(probeVmdk(extent.subarray(0, 512)));
    writeFileSync(path, extent);
    t.throws(() => openVmdk(path), { code: 'not-supported', message: /without its descriptor/ });
  }
});

t.test('ESXi extents that make no sense', async (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'disk.vmdk');
  const model = stampedModel({ size: 4096 * 40, unitSize: 4096, pattern: 'du', salt: 1 });
  writeFileSync(path, descriptorText({ createType: 'x', extents: ['RW 320 SESPARSE "e"'] }));
  const cases: [string, Buffer, Damage, RegExp][] = [
    ['COWD version', buildCowd(model), (file) => file.writeUInt32LE(2, 4), /COWD version 2/],
    [
      'COWD size',
      buildCowd(model),
      (file) => file.writeUInt32LE(100, 12),
      /holds 51200 bytes, 163840/,
    ],
    ['COWD grain', buildCowd(model), (file) => file.writeUInt32LE(0, 16), /grain size of 0/],
    [
      'COWD directory',
      buildCowd(model),
      (file) => file.writeUInt32LE(0, 24),
      /directory of 0 entries/,
    ],
    [
      'version',
      buildSeSparse(model),
      (file) => file.writeUInt32LE(9, 8),
      /seSparse version 0x200000009/,
    ],
    ['grain', buildSeSparse(model), (file) => file.writeUInt32LE(16, 24), /grain size 0x10 is not/],
    ['flags', buildSeSparse(model), (file) => file.writeUInt32LE(1, 40), /flags 0x1 is not/],
    ['reserved', buildSeSparse(model), (file) => file.writeUInt32LE(1, 64), /reserved field 0x1/],
    [
      'journal',
      buildSeSparse(model),
      (file) => file.writeUInt32LE(1, 512 + 24),
      /journal was not repl/,
    ],
    [
      'volatile',
      buildSeSparse(model),
      (file) => file.writeUInt32LE(1, 512),
      /no magic in the seSparse/,
    ],
    [
      'directory',
      buildSeSparse(model),
      (file) => file.writeUInt32LE(1 << 20, 128),
      /directory is not in/,
    ],
    ['capacity', buildSeSparse(model), (file) => file.writeUInt32LE(0, 16), /capacity 0 is not/],
  ];
  for (const [name, extent, damage, message] of cases) {
    damage(extent);
    writeFileSync(join(folder, 'e'), extent);
    t.throws(() => openVmdk(path), { name: 'DiskError', message }, name);
  }
});

t.test('seSparse entries that make no sense fail their grains alone', async (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'disk.vmdk');
  const model = stampedModel({ size: 4096 * 40, unitSize: 4096, pattern: 'du', salt: 1 });
  writeFileSync(path, descriptorText({ createType: 'x', extents: ['RW 320 SESPARSE "e"'] }));
  const extent = buildSeSparse(model);
  // Table entries: an unknown type, and a grain far outside.
  extent.writeUInt32LE(0x40000000, 4 * 512 + 2 * 8 + 4);
  extent.writeUInt32LE(0x3000ffff, 4 * 512 + 4 * 8 + 4);
  writeFileSync(join(folder, 'e'), extent);
  const failed = failedSectors(t, path, model);
  t.strictSame(failed, [...sectors(8192, 12288), ...sectors(16384, 20480)]);
  extent.writeUInt32LE(0x20000000, 3 * 512 + 4);
  writeFileSync(join(folder, 'e'), extent);
  t.equal(failedSectors(t, path, model).length, 320, 'without its table all are lost');
  t.equal(describeBase(path).spec.allocatedSize, model.size);
});
