/** VHD: what is refused at opening, and damage that fails the reads it concerns and no others. */
import { closeSync, openSync, readFileSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { DiskError } from '../../src/common/errors.js';
import { MiB } from '../../src/common/units.js';
import type { DiskImage, Extent } from '../../src/engine/disk-image.js';
import { openVhd } from '../../src/formats/vhd/vhd-image.js';
import { DYNAMIC_HEADER, FOOTER } from '../../src/formats/vhd/vhd-layout.js';
import { type DiskModel, stampedModel } from '../support/disk-model.js';
import { tempFolder } from '../support/temp-folder.js';
import {
  HEADER_OFFSET,
  sealVhd,
  TABLE_OFFSET,
  type VhdLayout,
  type VhdPlan,
  writeVhd,
} from '../support/vhd-writer.js';

const BLOCK = 65536;

interface Made {
  readonly path: string;
  readonly model: DiskModel;
  readonly layout: VhdLayout;
}

function make(folder: string, plan: Partial<VhdPlan> = {}): Made {
  const model = stampedModel({ size: 8 * BLOCK, unitSize: 512, pattern: 'd', salt: 3 });
  const path = join(folder, 'a.vhd');
  return { path, model, layout: writeVhd(path, { model, blockSize: BLOCK, ...plan }) };
}

function poke(path: string, offset: number, bytes: Buffer): void {
  const fd = openSync(path, 'r+');
  writeSync(fd, bytes, 0, bytes.length, offset);
  closeSync(fd);
}

function pokeEntry(path: string, block: number, sector: number): void {
  const entry = Buffer.alloc(4);
  entry.writeUInt32BE(sector);
  poke(path, TABLE_OFFSET + block * 4, entry);
}

/** Reads block by block: those in `bad` must fail with EIO, all others be right. */
function checkBlocks(
  t: Test,
  image: DiskImage,
  model: DiskModel,
  bad: number[],
  name: string,
): void {
  const failed: number[] = [];
  const wrong: number[] = [];
  const extent: Extent = { state: 'data', length: 0 };
  for (let at = 0; at < model.size; at += BLOCK) {
    const target = Buffer.alloc(BLOCK);
    image.extentAt(at, BLOCK, extent);
    t.equal(extent.state, 'data');
    try {
      image.readAt(target, 0, at, BLOCK);
      if (!target.equals(model.content.subarray(at, at + BLOCK))) wrong.push(at);
    } catch (error) {
      const isOurs = error instanceof DiskError && error.message.startsWith(image.path);
      if (!isOurs || error.errno !== 'EIO' || error.code !== 'damaged') throw error;
      failed.push(at / BLOCK);
    }
  }
  image.close();
  t.strictSame(wrong, [], `${name}: no wrong byte`);
  t.strictSame(failed, bad, `${name}: exactly the damaged blocks fail`);
}

t.test('table entries that cannot be true', async (t) => {
  const folder = tempFolder(t);
  const { layout } = make(folder);
  const second = layout.blockOffsets.get(1)! / 512;
  const cases: [string, number, number[]][] = [
    ['past the end', 0xfffffff0, [2]],
    ['the footer', layout.footerOffset / 512, [2]],
    ['a block that reaches into the footer', layout.footerOffset / 512 - 20, [2]],
    ['the copy of the footer', 0, [2]],
    ['the header', HEADER_OFFSET / 512, [2]],
    ['the table', TABLE_OFFSET / 512, [2]],
    ['the place of another block', second, [1, 2]],
    ['half of another block', second + 60, [1, 2]],
    ['the value that stands for damage', 0xfffffffe, [2]],
  ];
  for (const [name, sector, bad] of cases) {
    const { path, model } = make(folder);
    pokeEntry(path, 2, sector);
    checkBlocks(t, openVhd(path), model, bad, name);
  }
});

t.test('a block that begins in another one, behind the short last one', async (t) => {
  const model = stampedModel({ size: 3 * BLOCK + 512, unitSize: 512, pattern: 'd', salt: 3 });
  const { path, layout } = make(tempFolder(t), { model });
  const first = layout.blockOffsets.get(0)! / 512;
  pokeEntry(path, 3, first + 10);
  pokeEntry(path, 1, first + 20);
  const image = openVhd(path);
  const read = (block: number) => image.readAt(Buffer.alloc(512), 0, block * BLOCK, 512);
  for (const block of [0, 1, 3]) {
    t.throws(() => read(block), { code: 'damaged', errno: 'EIO' }, `block ${block}`);
  }
  t.doesNotThrow(() => read(2), 'block 2 lies by itself');
  image.close();
});

t.test('files that end too early', async (t) => {
  const folder = tempFolder(t);
  const { path, model, layout } = make(folder);
  const last = layout.blockOffsets.get(7)! + layout.bitmapSize;
  truncateSync(path, last + 1000);
  const image = openVhd(path);
  t.match(image.info().notes.join(), /footer at the end is missing; its copy/);
  const target = Buffer.alloc(512);
  image.readAt(target, 0, 7 * BLOCK, 512);
  t.ok(target.equals(model.content.subarray(7 * BLOCK, 7 * BLOCK + 512)), 'what is left reads');
  t.throws(() => image.readAt(target, 0, 7 * BLOCK + 512, 512), { code: 'damaged', errno: 'EIO' });
  checkBlocks(t, image, model, [7], 'in the last block');
  truncateSync(path, last - 100);
  checkBlocks(t, openVhd(path), model, [7], 'in the bitmap of the last block');
  truncateSync(path, layout.blockOffsets.get(4)!);
  checkBlocks(t, openVhd(path), model, [4, 5, 6, 7], 'at half');
  for (const [size, message] of [
    [TABLE_OFFSET + 10, /block table at 1536 .* past the end/],
    [HEADER_OFFSET + 10, /dynamic disk header at 512 lies past the end/],
    [300, /footer at the end is missing, and there is no sound copy/],
    [0, /footer at the end is missing/],
  ] as const) {
    truncateSync(path, size);
    t.throws(() => openVhd(path), { code: 'damaged', message }, `cut to ${size}`);
  }
});

t.test('a block that the writer cut where the disk ends', async (t) => {
  const folder = tempFolder(t);
  const model = stampedModel({ size: 3 * BLOCK + 512 * 9, unitSize: 512, pattern: 'd', salt: 1 });
  const { path, layout } = make(folder, { model });
  const footer = readFileSync(path).subarray(layout.footerOffset);
  const end = layout.blockOffsets.get(3)! + layout.bitmapSize + 512 * 9;
  truncateSync(path, end);
  poke(path, end, footer);
  const image = openVhd(path);
  const target = Buffer.alloc(512 * 9);
  image.readAt(target, 0, 3 * BLOCK, target.length);
  t.ok(target.equals(model.content.subarray(3 * BLOCK)));
  image.close();
});

t.test('one bad footer of two', async (t) => {
  const folder = tempFolder(t);
  const { path, model, layout } = make(folder);
  poke(path, layout.footerOffset + 70, Buffer.alloc(4, 0xff));
  const image = openVhd(path);
  t.match(image.info().notes.join(), /at the end is damaged \(checksum\); its copy/);
  checkBlocks(t, image, model, [], 'the one at the end');
  const other = make(folder);
  poke(other.path, 70, Buffer.alloc(4, 0xff));
  const opened = openVhd(other.path);
  t.match(opened.info().notes.join(), /copy of the footer at the start is damaged/);
  checkBlocks(t, opened, model, [], 'the copy');
  poke(other.path, layout.footerOffset + 70, Buffer.alloc(4, 0xff));
  t.throws(() => openVhd(other.path), { code: 'damaged', message: /no sound copy/ });
});

t.test('fixed disks', async (t) => {
  const folder = tempFolder(t);
  const { path, model } = make(folder, { type: 'fixed' });
  const footer = readFileSync(path).subarray(model.size);
  truncateSync(path, model.size - BLOCK);
  poke(path, model.size - BLOCK, footer);
  t.throws(() => openVhd(path), { code: 'damaged', message: /only 458752 lie in front/ });
  make(folder, { type: 'fixed' });
  poke(path, model.size + 70, Buffer.alloc(4, 0xff));
  t.throws(() => openVhd(path), { code: 'damaged', message: /no sound copy/ });
  make(folder, { type: 'fixed' });
  poke(path, model.size, Buffer.alloc(4096));
  poke(path, model.size + 4096, footer);
  const image = openVhd(path);
  t.match(image.info().notes.join(), /4096 bytes between the disk and its footer/);
  checkBlocks(t, image, model, [], 'a gap before the footer');
  // A guest may keep a dynamic VHD in its raw disk: the footer at the end decides.
  make(folder, { type: 'fixed' });
  const inner = join(folder, 'inner.vhd');
  writeVhd(inner, { model, blockSize: BLOCK });
  poke(path, 0, readFileSync(inner).subarray(0, 4096));
  const outer = openVhd(path);
  t.equal(outer.info().subformat, 'fixed');
  outer.close();
});

type Change = (part: Buffer) => void;

/** In the footer and its copy. */
function inFooters(change: Change): (bytes: Buffer) => void {
  return (bytes) => {
    for (const part of [bytes.subarray(0, FOOTER.size), bytes.subarray(-FOOTER.size)]) {
      change(part);
      sealVhd(part, FOOTER.offsetOf.checksum);
    }
  };
}

function inHeader(change: Change): (bytes: Buffer) => void {
  return (bytes) => {
    const part = bytes.subarray(HEADER_OFFSET, HEADER_OFFSET + DYNAMIC_HEADER.size);
    change(part);
    sealVhd(part, DYNAMIC_HEADER.offsetOf.checksum);
  };
}

const at = FOOTER.offsetOf;
const inDynamic = DYNAMIC_HEADER.offsetOf;
const REFUSALS: readonly [string, string, RegExp, (bytes: Buffer) => void][] = [
  ['version 2', 'not-supported', /version 2.0/, inFooters((b) => b.writeUInt16BE(2, at.version))],
  ['disk type 5', 'not-supported', /type 5/, inFooters((b) => b.writeUInt32BE(5, at.diskType))],
  [
    'size 0',
    'damaged',
    /size of 0/,
    inFooters((b) => b.fill(0, at.currentSize, at.currentSize + 8)),
  ],
  [
    'size past 2^53',
    'damaged',
    /out of range/,
    inFooters((b) => b.writeUInt8(0xff, at.currentSize)),
  ],
  [
    'size beyond the table',
    'damaged',
    /block table has 8 entries, .* need 9/,
    inFooters((b) => b.writeBigUInt64BE(BigInt(8 * BLOCK + 1), at.currentSize)),
  ],
  [
    'header past the end',
    'damaged',
    /lies past the end/,
    inFooters((b) => b.writeBigUInt64BE(1n << 40n, at.dataOffset)),
  ],
  [
    'header past 2^53',
    'damaged',
    /out of range/,
    inFooters((b) => b.fill(0xff, at.dataOffset, at.dataOffset + 8)),
  ],
  [
    'header somewhere else',
    'damaged',
    /no cxsparse cookie/,
    inFooters((b) => b.writeBigUInt64BE(2048n, at.dataOffset)),
  ],
  ['no header cookie', 'damaged', /no cxsparse cookie/, inHeader((b) => b.fill(0, 0, 8))],
  [
    'header version',
    'not-supported',
    /version 9/,
    inHeader((b) => b.writeUInt16BE(9, inDynamic.version)),
  ],
  [
    'header checksum',
    'damaged',
    /header is damaged \(checksum\)/,
    (bytes) => bytes.writeUInt8(1, HEADER_OFFSET + 900),
  ],
  [
    'block size 256',
    'damaged',
    /block size 256/,
    inHeader((b) => b.writeUInt32BE(256, inDynamic.blockSize)),
  ],
  [
    'table past the end',
    'damaged',
    /block table at \d+ .* past the end/,
    inHeader((b) => b.writeBigUInt64BE(1n << 33n, inDynamic.tableOffset)),
  ],
  [
    'table on the header',
    'damaged',
    /overlaps/,
    inHeader((b) => b.writeBigUInt64BE(1024n, inDynamic.tableOffset)),
  ],
  [
    'table of 16 GiB',
    'damaged',
    /block table .* past the end/,
    inHeader((b) => b.writeUInt32BE(0xffffffff, inDynamic.maxTableEntries)),
  ],
];

t.test('headers that are refused', async (t) => {
  const folder = tempFolder(t);
  const { path } = make(folder);
  const sound = readFileSync(path);
  for (const [name, code, message, change] of REFUSALS) {
    const bytes = Buffer.from(sound);
    change(bytes);
    writeFileSync(path, bytes);
    t.throws(() => openVhd(path), { code, message }, name);
    t.throws(() => openVhd(path), { message: new RegExp(`^${path}: `) }, `${name}: names the file`);
  }
});

t.test('locators that lie outside the file are passed over', async (t) => {
  const folder = tempFolder(t);
  const parent = { uuid: 'dddddddd-0000-0000-0000-000000000001', name: 'named.vhd' };
  const model = stampedModel({ size: MiB, unitSize: 512, pattern: 'u', salt: 1 });
  const { path } = make(folder, { model, type: 'differencing', parent });
  const bytes = readFileSync(path);
  inHeader((part) => {
    const first = inDynamic.parentLocators;
    part.write('W2ru', first);
    part.writeUInt32BE(600, first + 8);
    part.writeBigUInt64BE(0xffffffffffffff00n, first + 16);
    part.write('W2ru', first + 24);
    part.writeUInt32BE(0xffffffff, first + 24 + 8);
  })(bytes);
  writeFileSync(path, bytes);
  const image = openVhd(path);
  t.strictSame(image.parent?.names, ['named.vhd']);
  image.close();
});
