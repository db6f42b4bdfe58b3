/**
 * VDI: the shared suite on images of many shapes, damage, refusals, and agreement with qemu-img.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { ImageBase } from '../../src/formats/base.js';
import { openImage } from '../../src/formats/registry.js';
import { openVdi, probeVdi } from '../../src/formats/vdi/vdi-image.js';
import { imageSuite } from '../conformance/image-suite.js';
import { stampedModel } from '../support/disk-model.js';
import { tempFolder } from '../support/temp-folder.js';
import { qemuImg } from '../support/tools.js';
import { buildVdi, type VdiOptions, writeVdi } from '../support/vdi-writer.js';

const CAPABILITIES = { format: 'vdi', zeroExtents: true, unallocatedExtents: true };

const SHAPES: { name: string; size: number; unitSize: number; pattern: string; o?: VdiOptions }[] =
  [
    { name: '1 MiB blocks, all states', size: 6 * 1048576, unitSize: 1048576, pattern: 'duzdd' },
    { name: 'cut last block', size: 1048576 + 512 * 7, unitSize: 1048576, pattern: 'dd' },
    { name: '512-byte blocks', size: 512 * 333, unitSize: 512, pattern: 'dduzzudd' },
    {
      name: '4 KiB blocks with extra',
      size: 4096 * 40,
      unitSize: 4096,
      pattern: 'ddu',
      o: { extra: 512 },
    },
    {
      name: '64 KiB blocks, short header',
      size: 1e6 - (1e6 % 512),
      unitSize: 65536,
      pattern: 'udz',
      o: { headerSize: 384 },
    },
    { name: 'size is no multiple of a sector', size: 70001, unitSize: 4096, pattern: 'dzu' },
    { name: 'one sector', size: 512, unitSize: 1048576, pattern: 'd' },
    { name: 'empty', size: 3 * 1048576, unitSize: 1048576, pattern: 'u' },
    {
      name: 'fixed',
      size: 65536 * 5,
      unitSize: 65536,
      pattern: 'd',
      o: { type: 2, slotOf: (nth) => nth },
    },
    {
      name: 'aligned to 1 MiB',
      size: 65536 * 5,
      unitSize: 65536,
      pattern: 'dzd',
      o: { mapOffset: 65536, dataOffset: 1048576 },
    },
    {
      name: 'many blocks: several table pages',
      size: 512 * 9000,
      unitSize: 512,
      pattern: 'duuzzzddddd',
    },
  ];

t.test('images of many shapes', async (t) => {
  const folder = tempFolder(t);
  for (const [index, { name, o = {}, ...shape }] of SHAPES.entries()) {
    const model = stampedModel({ ...shape, salt: index });
    const path = join(folder, `${index}.vdi`);
    writeVdi(path, model, o);
    imageSuite(t, name, () => openVdi(path), model, CAPABILITIES);
  }
});

t.test('info and probe', async (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'a.vdi');
  const model = stampedModel({ size: 8192, unitSize: 4096, pattern: 'du', salt: 1 });
  writeVdi(path, model, { parent: '11111111-2222-3333-4444-666666666666' });
  const image = openImage(path);
  t.teardown(() => image.close());
  t.match(image.info(), {
    format: 'vdi',
    subformat: 'dynamic',
    virtualSize: 8192,
    allocatedSize: 4096,
    unitSize: 4096,
    creator: 'Oracle VM VirtualBox Disk Image',
    identity: {
      uuid: '11111111-2222-3333-4444-555555555555',
      'modification-uuid': '66666666-7777-8888-9999-aaaaaaaaaaaa',
    },
    notes: [/names a parent, but is no differencing image/],
  });
  t.equal(image.parent, undefined, 'a parent counts in differencing images only');
  t.ok(probeVdi(buildVdi(model).subarray(0, 68)));
  t.notOk(probeVdi(Buffer.alloc(0)));
  t.notOk(probeVdi(buildVdi(model).subarray(0, 67)));
});

t.test('refuses headers that make no sense, by name', async (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'bad.vdi');
  const model = stampedModel({ size: 65536, unitSize: 4096, pattern: 'd', salt: 1 });
  const cases: [string, (file: Buffer) => void, RegExp][] = [
    ['signature', (file) => file.fill(0, 64, 68), /no VDI signature/],
    ['version 1.2', (file) => file.writeUInt16LE(2, 68), /version 1\.2 is not supported/],
    ['header size', (file) => file.writeUInt32LE(100, 72), /header size 100 is below/],
    ['undo', (file) => file.writeUInt32LE(3, 76), /undo images are not supported/],
    ['type 0', (file) => file.writeUInt32LE(0, 76), /type 0 is unknown/],
    ['flags', (file) => file.writeUInt32LE(0x80000000, 80), /flags 0x80000000/],
    ['parentless', (file) => file.writeUInt32LE(4, 76), /without the UUID of its parent/],
    ['sector', (file) => file.writeUInt32LE(4096, 360), /sector size is 4096/],
    ['block 0', (file) => file.writeUInt32LE(0, 376), /block size 0 is not/],
    ['block 3000', (file) => file.writeUInt32LE(3000, 376), /block size 3000 is not/],
    ['extra', (file) => file.writeUInt32LE(3, 380), /extra size 3/],
    ['disk 0', (file) => file.writeBigUInt64LE(0n, 368), /disk size 0 is not/],
    ['disk 2^50', (file) => file.writeBigUInt64LE(1n << 50n, 368), /is not from 1 byte to 64/],
    ['few blocks', (file) => file.writeUInt32LE(15, 384), /more than its 15 blocks/],
    ['allocated', (file) => file.writeUInt32LE(17, 388), /17 blocks allocated of 16/],
    ['map in header', (file) => file.writeUInt32LE(400, 340), /overlaps the header/],
    ['map past end', (file) => file.writeUInt32LE(0x7fffffff, 340), /past the end of the file/],
    ['data in map', (file) => file.writeUInt32LE(512, 344), /overlaps the block map/],
  ];
  for (const [name, damage, message] of cases) {
    const file = buildVdi(model);
    damage(file);
    writeFileSync(path, file);
    t.throws(() => openVdi(path), { name: 'DiskError', message }, name);
  }
  writeFileSync(path, buildVdi(model).subarray(0, 455));
  t.throws(() => openVdi(path), /455 bytes are too short/);
});

t.test('a block outside the file fails alone, with EIO', async (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'bad.vdi');
  const model = stampedModel({ size: 65536, unitSize: 4096, pattern: 'd', salt: 1 });
  const file = buildVdi(model);
  file.writeUInt32LE(16, 512 + 4 * 3);
  file.writeUInt32LE(0xfffffffd, 512 + 4 * 5);
  writeFileSync(path, file);
  truncateSync(path, file.length - 1);
  const base = new ImageBase([openVdi(path)]);
  t.teardown(() => base.close());
  const failed: number[] = [];
  const bytes = Buffer.alloc(512);
  for (let at = 0; at < model.size; at += 512) {
    try {
      base.readAt(bytes, 0, at, 512);
      if (!bytes.equals(model.content.subarray(at, at + 512))) failed.push(-at);
    } catch (error) {
      t.match(error, { name: 'DiskError', code: 'damaged', errno: 'EIO' });
      failed.push(at);
    }
  }
  // Slots run backwards: the last byte of the file is that of block 0.
  const block = (n: number) => Array.from({ length: 8 }, (_, index) => n * 4096 + index * 512);
  t.strictSame(failed, [3584, ...block(3), ...block(5)]);
});

t.test('blocks that share a slot fail, the others do not', async (t) => {
  const path = join(tempFolder(t), 'shared.vdi');
  const model = stampedModel({ size: 32768, unitSize: 4096, pattern: 'd', salt: 1 });
  const file = buildVdi(model);
  const entry = (block: number) => 512 + 4 * block;
  file.writeUInt32LE(file.readUInt32LE(entry(2)), entry(5));
  writeFileSync(path, file);
  const image = openVdi(path);
  t.teardown(() => image.close());
  const bytes = Buffer.alloc(4096);
  for (const block of model.states.keys()) {
    const read = () => image.readAt(bytes, 0, block * 4096, 4096);
    if (block === 2 || block === 5) {
      t.throws(read, { code: 'damaged', errno: 'EIO', message: /VDI block [25] shares slot 5/ });
      t.equal(image.locate?.(block * 4096), undefined);
    } else {
      read();
      t.ok(bytes.equals(model.content.subarray(block * 4096, (block + 1) * 4096)));
    }
  }
  const whole = Buffer.alloc(model.size);
  t.throws(() => image.readAt(whole, 0, 0, whole.length), { message: /shares slot 5/ });
});

t.test('qemu-img reads the same and makes images that read the same', async (t) => {
  const qemu = qemuImg(t);
  if (qemu === undefined) return;
  const folder = tempFolder(t);
  const model = stampedModel({ size: 5 * 1048576, unitSize: 1048576, pattern: 'duz', salt: 5 });
  const ours = join(folder, 'ours.vdi');
  const raw = join(folder, 'disk.raw');
  writeVdi(ours, model);
  writeFileSync(raw, model.content);
  execFileSync(qemu, ['compare', '-f', 'vdi', '-F', 'raw', ours, raw]);
  for (const options of ['static=off', 'static=on']) {
    const theirs = join(folder, `theirs-${options}.vdi`);
    execFileSync(qemu, ['convert', '-O', 'vdi', '-o', options, raw, theirs]);
    const base = new ImageBase([openImage(theirs)]);
    const whole = Buffer.alloc(model.size);
    base.readAt(whole, 0, 0, model.size);
    base.close();
    t.ok(whole.equals(readFileSync(raw)), `made by qemu-img with ${options}`);
  }
});
