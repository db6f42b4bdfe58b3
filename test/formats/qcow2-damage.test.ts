/** qcow2: what is refused at opening, and damage that fails the reads it concerns and no others. */
import { closeSync, openSync, readFileSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { DiskError } from '../../src/common/errors.js';
import type { DiskImage, Extent } from '../../src/engine/disk-image.js';
import { openQcow2, probeQcow2 } from '../../src/formats/qcow2/qcow2-image.js';
import { HEADER_V2, HEADER_V3 } from '../../src/formats/qcow2/qcow2-layout.js';
import { type DiskModel, stampedModel } from '../support/disk-model.js';
import { type Qcow2Layout, type Qcow2Plan, writeQcow2 } from '../support/qcow2-writer.js';
import { tempFolder } from '../support/temp-folder.js';

const CLUSTER = 4096;
const V3 = HEADER_V2.size;

interface Made {
  readonly path: string;
  readonly model: DiskModel;
  readonly layout: Qcow2Layout;
}

function make(folder: string, name: string, plan: Partial<Qcow2Plan> = {}, pattern = 'd'): Made {
  const unitSize = plan.extendedL2 === true ? 512 : CLUSTER;
  const model = plan.model ?? stampedModel({ size: 16 * 16384, unitSize, pattern, salt: 5 });
  const path = join(folder, `${name}.qcow2`);
  return { path, model, layout: writeQcow2(path, { clusterBits: 12, ...plan, model }) };
}

/** Writes a 64-bit big-endian value into the file. */
function poke(path: string, offset: number, value: bigint): void {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt.asUintN(64, value));
  pokeBytes(path, offset, bytes);
}

function pokeBytes(path: string, offset: number, bytes: Buffer): void {
  const fd = openSync(path, 'r+');
  writeSync(fd, bytes, 0, bytes.length, offset);
  closeSync(fd);
}

/**
 * Reads cluster by cluster: the ones in `bad` must fail with EIO and be told as data, all others be
 * right.
 */
function checkClusters(
  t: Test,
  image: DiskImage,
  model: DiskModel,
  bad: number[],
  name: string,
): void {
  const failed: number[] = [];
  const wrong: number[] = [];
  const extent: Extent = { state: 'data', length: 0 };
  for (let cluster = 0; cluster * CLUSTER < model.size; cluster += 1) {
    const at = cluster * CLUSTER;
    const target = Buffer.alloc(CLUSTER);
    image.extentAt(at, CLUSTER, extent);
    if (extent.state === 'unallocated') continue;
    try {
      image.readAt(target, 0, at, CLUSTER);
      if (!target.equals(model.content.subarray(at, at + CLUSTER))) wrong.push(cluster);
    } catch (error) {
      if (!(error instanceof DiskError) || error.errno !== 'EIO' || error.code !== 'damaged')
        throw error;
      if (!error.message.startsWith(image.path)) wrong.push(cluster);
      failed.push(cluster);
    }
  }
  image.close();
  t.strictSame(wrong, [], `${name}: no wrong byte`);
  t.strictSame(failed, bad, `${name}: exactly the damaged clusters fail`);
}

const at = HEADER_V2.offsetOf;
const at3 = HEADER_V3.offsetOf;
/** What is written where, how wide, and what the refusal must say. */
const BAD_HEADERS: readonly [string, number, number, bigint, string, RegExp][] = [
  ['backing name past the cluster', at.backingFileOffset, 8, 5000n, 'damaged', /outside the first/],
  ['backing name in the header', at.backingFileOffset, 8, 8n, 'damaged', /outside the first/],
  [
    'refcount table past the end',
    at.refcountTableOffset,
    8,
    1n << 40n,
    'damaged',
    /refcount table/,
  ],
  ['refcount table unaligned', at.refcountTableOffset, 8, 4097n, 'damaged', /refcount table/],
  ['no refcount table', at.refcountTableClusters, 4, 0n, 'damaged', /refcount table/],
  ['huge refcount table', at.refcountTableClusters, 4, 0xffffffffn, 'damaged', /refcount table/],
  ['L1 table on the refcount table', at.l1TableOffset, 8, 4096n, 'damaged', /overlaps/],
  ['L1 table in the header', at.l1TableOffset, 8, 0n, 'damaged', /in the header/],
  ['L1 table past 2^53', at.l1TableOffset, 8, 1n << 60n, 'damaged', /out of range/],
  ['LUKS', at.cryptMethod, 4, 2n, 'not-supported', /encrypted \(LUKS\)/],
  ['unknown cipher', at.cryptMethod, 4, 77n, 'not-supported', /encrypted \(method 77\)/],
  ['snapshot table past the end', at.snapshotCount, 4, 1n, 'damaged', /snapshot table/],
  [
    'data file without name',
    V3 + at3.incompatibleFeatures,
    8,
    4n,
    'not-supported',
    /does not name/,
  ],
  ['zstd bit without type', V3 + at3.incompatibleFeatures, 8, 8n, 'damaged', /contradicts/],
  [
    'extended L2 of small clusters',
    V3 + at3.incompatibleFeatures,
    8,
    16n,
    'damaged',
    /cluster_bits/,
  ],
  ['header length 108', V3 + at3.headerLength, 4, 108n, 'damaged', /108 bytes long/],
  ['not qcow2', at.magic, 4, 0n, 'damaged', /no QFI magic/],
];

t.test('headers that are refused', async (t) => {
  const folder = tempFolder(t);
  const sound = readFileSync(make(folder, 'sound').path);
  for (const [name, offset, width, value, code, message] of BAD_HEADERS) {
    const bytes = Buffer.from(sound);
    if (width === 8) bytes.writeBigUInt64BE(value, offset);
    else bytes.writeUInt32BE(Number(value), offset);
    const path = join(folder, 'bad.qcow2');
    writeFileSync(path, bytes);
    t.throws(() => openQcow2(path), { code, message }, name);
    t.throws(
      () => openQcow2(path),
      { message: new RegExp(`^${path}: `) },
      `${name}: names the file`,
    );
  }
});

t.test('unknown incompatible features are named', async (t) => {
  const folder = tempFolder(t);
  const featureNames = { 9: 'time travel' };
  const { path } = make(folder, 'a', { incompatible: (1n << 9n) | (1n << 63n), featureNames });
  const message = /unknown incompatible features: bit 9 \("time travel"\), bit 63$/;
  t.throws(() => openQcow2(path), { code: 'not-supported', message });
});

t.test('notes on marks that do not hinder reading', async (t) => {
  const folder = tempFolder(t);
  const features = { incompatible: 3n, compatible: 1n << 7n, autoclear: 1n << 33n };
  const { path, model } = make(folder, 'a', features);
  const image = openQcow2(path);
  const notes = image.info().notes.join('\n');
  t.match(notes, /not closed cleanly/);
  t.match(notes, /marked corrupt/);
  t.match(notes, /unknown compatible feature: bit 7/);
  t.match(notes, /unknown autoclear feature: bit 33/);
  checkClusters(t, image, model, [], 'marked image');
});

t.test('entries that cannot be true', async (t) => {
  const folder = tempFolder(t);
  const cases: [string, (layout: Qcow2Layout) => bigint][] = [
    ['past the end', (layout) => BigInt(layout.fileSize)],
    ['far past the end', () => 0x00fffffffffff000n],
    ['unaligned', (layout) => BigInt(layout.dataOffsets.get(3)! + 512)],
    ['copied flag without a place', () => 0n],
    ['in the L1 table', (layout) => BigInt(layout.l1Offset)],
    ['in the L2 table', (layout) => BigInt(layout.l2Offsets.get(0)!)],
    ['in the refcount table', (layout) => BigInt(layout.refcountTableOffset)],
    ['in a refcount block', (layout) => BigInt(layout.refcountBlockOffsets[0]!)],
  ];
  for (const [name, value] of cases) {
    const { path, model, layout } = make(folder, 'a');
    poke(path, layout.l2Offsets.get(0)! + 3 * 8, value(layout) | (1n << 63n));
    checkClusters(t, openQcow2(path), model, [3], name);
  }
});

t.test('subcluster bitmaps that contradict themselves', async (t) => {
  const folder = tempFolder(t);
  const plan = { clusterBits: 14, extendedL2: true };
  for (const [name, entry, bitmap] of [
    ['data and zero at once', undefined, 0x00000001_00000001n],
    ['data without a cluster', 0n, 0x00000000_00000001n],
  ] as const) {
    const { path, model, layout } = make(folder, 'a', plan);
    const at = layout.l2Offsets.get(0)! + 2 * 16;
    if (entry !== undefined) poke(path, at, entry);
    poke(path, at + 8, bitmap);
    checkClusters(t, openQcow2(path), model, [8, 9, 10, 11], name);
  }
});

t.test('L1 entries that cannot be true', async (t) => {
  const folder = tempFolder(t);
  const model = stampedModel({ size: 4 << 20, unitSize: CLUSTER, pattern: 'd', salt: 1 });
  const second = Array.from({ length: 512 }, (_, index) => 512 + index);
  const both = Array.from({ length: 1024 }, (_, index) => index);
  const cases: [string, (layout: Qcow2Layout) => bigint, number[]][] = [
    ['past the end', (layout) => BigInt(layout.fileSize), second],
    ['unaligned', (layout) => BigInt(layout.l2Offsets.get(1)! + 512), second],
    ['on the refcount table', (layout) => BigInt(layout.refcountTableOffset), second],
    ['two entries, one table', (layout) => BigInt(layout.l2Offsets.get(0)!), both],
  ];
  for (const [name, value, bad] of cases) {
    const { path, layout } = make(folder, 'a', { model });
    poke(path, layout.l1Offset + 8, value(layout) | (1n << 63n));
    checkClusters(t, openQcow2(path), model, bad, name);
  }
});

t.test('files that end too early', async (t) => {
  const folder = tempFolder(t);
  const { path, model, layout } = make(folder, 'cut', { place: (nth) => 100 + nth });
  const lastData = Math.max(...layout.dataOffsets.values());
  truncateSync(path, lastData + 512);
  checkClusters(t, openQcow2(path), model, [63], 'in the last data cluster');
  const image = openQcow2(path);
  const target = Buffer.alloc(512);
  image.readAt(target, 0, 63 * CLUSTER, 512);
  t.ok(
    target.equals(model.content.subarray(63 * CLUSTER, 63 * CLUSTER + 512)),
    'what is left reads',
  );
  image.close();

  // The second L2 table is the last thing in the file: its first five entries are left.
  const wide = stampedModel({ size: 4 << 20, unitSize: CLUSTER, pattern: 'd', salt: 1 });
  const other = make(folder, 'table', { model: wide });
  const table = readFileSync(other.path)
    .subarray(other.layout.l2Offsets.get(1)!)
    .subarray(0, 5 * 8 + 3);
  const size = other.layout.fileSize;
  pokeBytes(other.path, size, table);
  poke(other.path, other.layout.l1Offset + 8, BigInt(size) | (1n << 63n));
  const lost = Array.from({ length: 512 - 5 }, (_, index) => 512 + 5 + index);
  checkClusters(t, openQcow2(other.path), wide, lost, 'in an L2 table');
});

t.test('compressed clusters', async (t) => {
  const folder = tempFolder(t);
  for (const compression of ['deflate', 'zstd'] as const) {
    const plan = { compression, compressed: () => true };
    const broken = make(folder, 'broken', plan);
    pokeBytes(broken.path, broken.layout.dataOffsets.get(7)!, Buffer.alloc(16, 0xff));
    checkClusters(t, openQcow2(broken.path), broken.model, [7], `${compression}: garbage`);
    const gone = make(folder, 'gone', plan);
    const entry = (1n << 62n) | BigInt(gone.layout.fileSize + 4096);
    poke(gone.path, gone.layout.l2Offsets.get(0)! + 7 * 8, entry);
    checkClusters(t, openQcow2(gone.path), gone.model, [7], `${compression}: past the end`);
    const inTable = make(folder, 'table', plan);
    poke(inTable.path, inTable.layout.l2Offsets.get(0)! + 7 * 8, (1n << 62n) | 4100n);
    checkClusters(t, openQcow2(inTable.path), inTable.model, [7], `${compression}: in a table`);
  }
});

t.test('version 2 has no zero clusters', async (t) => {
  const folder = tempFolder(t);
  const { path, model } = make(folder, 'a', { version: 2 }, 'ddz');
  const zeroes = model.states.flatMap((state, cluster) => (state === 'zero' ? [cluster] : []));
  checkClusters(t, openQcow2(path), model, zeroes, 'version 2');
});

t.test('external data files that are refused', async (t) => {
  const folder = tempFolder(t);
  const cases: [string, string, RegExp][] = [
    ['../outside.raw', 'not-found', /no such file/],
    ['/etc/passwd', 'not-permitted', /outside the folder/],
    ['json:{"driver":"nbd"}', 'not-permitted', /is a protocol/],
    ['self.qcow2', 'damaged', /names itself/],
    ['missing.raw', 'not-found', /"missing.raw"/],
  ];
  for (const [name, code, message] of cases) {
    const dataFile = { name, path: join(folder, 'real.raw') };
    const { path } = make(folder, 'self', { dataFile });
    t.throws(() => openQcow2(path), { code, message }, name);
  }
});

t.test('external data that does not lie where it must', async (t) => {
  const folder = tempFolder(t);
  const dataFile = { name: 'd.raw', path: join(folder, 'd.raw') };
  const { path, model, layout } = make(folder, 'moved', { dataFile });
  poke(path, layout.l2Offsets.get(0)! + 3 * 8, (1n << 63n) | BigInt(5 * CLUSTER));
  poke(path, layout.l2Offsets.get(0)! + 4 * 8, (1n << 62n) | BigInt(5 * CLUSTER));
  truncateSync(dataFile.path, 63 * CLUSTER);
  checkClusters(t, openQcow2(path), model, [3, 4, 63], 'external data');
});

t.test('snapshot tables', async (t) => {
  const folder = tempFolder(t);
  const small = stampedModel({ size: 1 << 16, unitSize: CLUSTER, pattern: 'du', salt: 8 });
  const plan = { snapshots: [{ name: 'one', model: small }] };
  const cases: [string, number, bigint, RegExp][] = [
    ['name reaches out', 12, 0x0001_ffff_0000_0000n, /reaches out of the table/],
    ['extra data reaches out', 32, 0xffffffffn, /reaches out of the table/],
  ];
  for (const [name, offset, value, message] of cases) {
    const { path, layout } = make(folder, 'a', plan);
    poke(path, layout.snapshotTableOffset + offset, value);
    t.throws(() => openQcow2(path), { code: 'damaged', message }, name);
  }
  const { path, model, layout } = make(folder, 'l1', plan);
  poke(path, layout.snapshotTableOffset, 1n << 40n);
  checkClusters(t, openQcow2(path), model, [], 'current state beside a lost snapshot');
  t.throws(() => openQcow2(path, { snapshot: 'one' }), {
    code: 'damaged',
    message: /past the end/,
  });
});

t.test('probing', async (t) => {
  t.equal(probeQcow2(Buffer.alloc(0)), false);
  t.equal(probeQcow2(Buffer.from('QFI\xfb', 'latin1')), false, 'too short to tell from qcow');
  t.equal(probeQcow2(Buffer.from('QFI\xfb\0\0\0\x01', 'latin1')), false, 'qcow, the older format');
  t.equal(probeQcow2(Buffer.from('QFI\xfb\0\0\0\x03', 'latin1')), true);
  t.equal(probeQcow2(Buffer.from('QFI\xfb\0\0\0\x09', 'latin1')), true, 'open says what is wrong');
});
