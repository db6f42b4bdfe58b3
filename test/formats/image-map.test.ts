/** Maps of image chains: the same as qemu-img's, and the bytes lie where the map says. */
import { execFileSync } from 'node:child_process';
import { closeSync, openSync, readSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { collectPage, ExtentJoiner, type MapExtent } from '../../src/common/extent-map.js';
import type { DiskImage } from '../../src/engine/disk-image.js';
import { ImageBase } from '../../src/formats/base.js';
import { mapImages } from '../../src/formats/image-map.js';
import { openChain } from '../../src/formats/open-chain.js';
import { stampedModel } from '../support/disk-model.js';
import { tempFolder } from '../support/temp-folder.js';
import { qemuImg } from '../support/tools.js';
import { writeVdi } from '../support/vdi-writer.js';
import { buildSparse, descriptorText, writeMonolithic } from '../support/vmdk-writer.js';

const GRAIN = 65536;

function mapOf(images: readonly DiskImage[], limit = 1e9): MapExtent[] {
  const end = images[0]!.virtualSize;
  const joiner = new ExtentJoiner();
  const extents: (MapExtent | undefined)[] = [];
  for (let start: number | undefined = 0; start !== undefined; ) {
    const range = { start, end, limit, maxMs: 1e9 };
    const page = collectPage(range, (at) => mapImages(images, at, end - at));
    extents.push(...page.extents.map((extent) => joiner.add(extent)));
    start = page.next;
  }
  extents.push(joiner.end());
  return extents.filter((extent) => extent !== undefined);
}

/** Every extent begins where the one before it ends, and its bytes are found where it says. */
function checkMap(t: Test, images: readonly DiskImage[]): void {
  const extents = mapOf(images);
  const base = new ImageBase(images);
  let at = 0;
  let plain = 0;
  const wrong: MapExtent[] = [];
  for (const extent of extents) {
    const content = Buffer.alloc(extent.length);
    base.readAt(content, 0, extent.start, extent.length);
    if (extent.start !== at || !holds(extent, content)) wrong.push(extent);
    if (extent.offset !== undefined) plain += extent.length;
    at += extent.length;
  }
  t.equal(at, base.virtualSize, 'the map covers the disk');
  t.strictSame(wrong, [], 'every extent holds what it says');
  t.ok(plain > 0, `${plain} bytes lie in files as they are`);
  t.strictSame(mapOf(images, 1), extents, 'the same in pages of one extent');
}

function holds(extent: MapExtent, content: Buffer): boolean {
  if (extent.zero === extent.data || (extent.zero && !content.every((byte) => byte === 0))) {
    return false;
  }
  if (extent.offset === undefined) return true;
  const stored = Buffer.alloc(extent.length);
  const fd = openSync(extent.file!, 'r');
  readSync(fd, stored, 0, stored.length, extent.offset);
  closeSync(fd);
  return stored.equals(content);
}

/**
 * What both ways of telling agree on: where data lie, and what is zero. qemu-img also gives offsets
 * of zeroes, and calls holes of flat files data.
 */
function normalised(extents: readonly MapExtent[]): unknown[] {
  const joiner = new ExtentJoiner();
  const plain = extents.map(({ start, length, depth, offset, ...told }) => {
    const data = told.data && !told.zero;
    const place = data && offset !== undefined ? { offset } : {};
    return joiner.add({ start, length, depth, present: true, zero: !data, data, ...place });
  });
  return [...plain, joiner.end()].filter((extent) => extent !== undefined);
}

t.test('agrees with qemu-img map', async (t) => {
  const qemu = qemuImg(t);
  if (qemu === undefined) return;
  const folder = tempFolder(t);
  const raw = join(folder, 'disk.raw');
  const model = stampedModel({ size: GRAIN * 70, unitSize: GRAIN, pattern: 'dduuudu', salt: 1 });
  const part = Buffer.alloc(GRAIN);
  const fd = openSync(raw, 'w');
  closeSync(fd);
  execFileSync('truncate', ['-s', String(model.size), raw]);
  const io = [...model.states.keys()]
    .filter((unit) => model.states[unit] === 'data')
    .flatMap((unit) => ['-c', `write -P ${1 + (unit % 250)} ${unit * GRAIN} ${part.length}`]);
  execFileSync('qemu-io', ['-f', 'raw', ...io, raw], { stdio: 'ignore' });
  const made: string[] = [raw];
  for (const [format, options] of [
    ['qcow2', 'cluster_size=4k'],
    ['qcow2', 'extended_l2=on,cluster_size=64k'],
    ['vmdk', 'subformat=monolithicSparse'],
    ['vmdk', 'subformat=monolithicFlat'],
    ['vmdk', 'subformat=twoGbMaxExtentSparse'],
    ['vdi', 'static=off'],
  ] as const) {
    const path = join(folder, `${made.length}.${format}`);
    execFileSync(qemu, ['convert', '-O', format, '-o', options, raw, path]);
    made.push(path);
  }
  const child = join(folder, 'child.qcow2');
  execFileSync(qemu, ['create', '-q', '-f', 'qcow2', '-b', made[1]!, '-F', 'qcow2', child, '6M']);
  const changes = ['-c', 'write -P 9 100k 10k', '-c', 'write -z 256k 300k'];
  execFileSync('qemu-io', [...changes, child], { stdio: 'ignore' });
  for (const path of [...made, child]) {
    const images = openChain(path);
    const format = images[0]!.format;
    const text = execFileSync(qemu, ['map', '--output=json', '-f', format, path], {
      encoding: 'utf8',
    });
    t.strictSame(normalised(mapOf(images)), normalised(JSON.parse(text)), path);
    checkMap(t, images);
    for (const image of images) image.close();
  }
});

t.test('zeroes, compressed grains, several files, and depth', async (t) => {
  const folder = tempFolder(t);
  const model = (pattern: string, salt: number) =>
    stampedModel({ size: GRAIN * 30 + 512, unitSize: GRAIN, pattern, salt });
  const path = join(folder, 'top.vmdk');
  writeMonolithic(join(folder, 'base.vmdk'), model('ddudd', 1), { stream: 'end', cid: '00000001' });
  writeMonolithic(path, model('uduuuz', 2), {
    zeroedGrains: true,
    parentCid: '00000001',
    parentName: 'base.vmdk',
  });
  const images = openChain(path);
  checkMap(t, images);
  const told = mapOf(images).slice(0, 4);
  t.match(told, [
    { depth: 1, data: true, compressed: true, file: join(folder, 'base.vmdk') },
    { start: GRAIN, depth: 0, data: true, file: path },
    { start: 2 * GRAIN, depth: 1, present: false, zero: true },
    { start: 3 * GRAIN, length: 2 * GRAIN, depth: 1, compressed: true },
  ]);
  t.equal(told[0]?.offset, undefined, 'compressed data are nowhere as they are');
  for (const image of images) image.close();

  const vdi = join(folder, 'disk.vdi');
  writeVdi(vdi, stampedModel({ size: 20 * GRAIN, unitSize: GRAIN, pattern: 'dzud', salt: 3 }));
  const [image] = openChain(vdi);
  checkMap(t, [image!]);
  image!.close();
});

t.test('nothing leads out of a file, whatever the tables say', async (t) => {
  const folder = tempFolder(t);
  const model = stampedModel({ size: GRAIN * 8, unitSize: GRAIN, pattern: 'd', salt: 1 });
  const extent = buildSparse(model);
  writeFileSync(join(folder, 'cut.vmdk'), extent.subarray(0, extent.length - 3 * GRAIN - 512));
  const path = join(folder, 'disk.vmdk');
  const line = `RW ${model.size / 512} SPARSE "cut.vmdk"`;
  writeFileSync(path, descriptorText({ createType: 'twoGbMaxExtentSparse', extents: [line] }));
  const images = openChain(path);
  const extents = mapOf(images);
  const lost = extents.filter((each) => each.data && each.offset === undefined);
  t.ok(lost.length > 0, 'what is cut off is data that lies nowhere');
  const size = extent.length - 3 * GRAIN - 512;
  for (const { offset, length } of extents) {
    if (offset !== undefined) t.ok(offset + length <= size, `${offset}+${length} is in the file`);
  }
  for (const image of images) image.close();
});
