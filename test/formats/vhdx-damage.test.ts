/** VHDX: what is refused at opening, and damage that fails the reads it concerns and no others. */
import { closeSync, openSync, readFileSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { DiskError } from '../../src/common/errors.js';
import { MiB } from '../../src/common/units.js';
import type { DiskImage, Extent } from '../../src/engine/disk-image.js';
import { openVhdx } from '../../src/formats/vhdx/vhdx-image.js';
import {
  HEADER,
  HEADER_OFFSETS,
  HEADER_SIZE,
  METADATA_ENTRY,
  METADATA_TABLE,
  REGION_ENTRY,
  REGION_TABLE,
  REGION_TABLE_OFFSETS,
  REGION_TABLE_SIZE,
} from '../../src/formats/vhdx/vhdx-layout.js';
import { type DiskModel, stampedModel } from '../support/disk-model.js';
import { tempFolder } from '../support/temp-folder.js';
import {
  BAT_OFFSET,
  LOG_OFFSET,
  METADATA_OFFSET,
  seal,
  type VhdxLayout,
  type VhdxPlan,
  writeVhdx,
} from '../support/vhdx-writer.js';

const UNIT = 64 * 1024;
const UNKNOWN = '12345678-1234-1234-1234-123456789abc';
const PARENT = { parent_linkage: `{${UNKNOWN}}`, relative_path: 'p.vhdx' };

interface Made {
  readonly path: string;
  readonly model: DiskModel;
  readonly layout: VhdxLayout;
}

function make(folder: string, plan: Partial<VhdxPlan> = {}): Made {
  const model = plan.model ?? stampedModel({ size: 4 * MiB, unitSize: MiB, pattern: 'd', salt: 3 });
  const path = join(folder, 'a.vhdx');
  return { path, model, layout: writeVhdx(path, { blockSize: MiB, ...plan, model }) };
}

function pokeEntry(path: string, entry: number, offsetMib: number, state: number): void {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE((BigInt(offsetMib) << 20n) | BigInt(state));
  poke(path, BAT_OFFSET + entry * 8, bytes);
}

function poke(path: string, offset: number, bytes: Buffer): void {
  const fd = openSync(path, 'r+');
  writeSync(fd, bytes, 0, bytes.length, offset);
  closeSync(fd);
}

/**
 * Reads in pieces of 64 KiB: those of the blocks in `bad` must fail with EIO, all others be right.
 */
function checkBlocks(
  t: Test,
  image: DiskImage,
  model: DiskModel,
  bad: number[],
  name: string,
): void {
  const failed = new Set<number>();
  const wrong: number[] = [];
  const extent: Extent = { state: 'data', length: 0 };
  for (let at = 0; at < model.size; at += UNIT) {
    image.extentAt(at, UNIT, extent);
    if (extent.state === 'unallocated') continue;
    const target = Buffer.alloc(extent.length);
    try {
      image.readAt(target, 0, at, extent.length);
      if (!target.equals(model.content.subarray(at, at + extent.length))) wrong.push(at);
    } catch (error) {
      const isOurs = error instanceof DiskError && error.message.startsWith(image.path);
      if (!isOurs || error.errno !== 'EIO' || error.code !== 'damaged') throw error;
      failed.add(Math.floor(at / MiB));
    }
  }
  image.close();
  t.strictSame(wrong, [], `${name}: no wrong byte`);
  t.strictSame([...failed], bad, `${name}: exactly the damaged blocks fail`);
}

t.test('table entries that cannot be true', async (t) => {
  const folder = tempFolder(t);
  const cases: [string, number, number, number[]][] = [
    ['past the end', 5000, 6, [2]],
    ['far past the end', 2 ** 43, 6, [2]],
    ['in the header area', 0, 6, [2]],
    ['in the log', LOG_OFFSET / MiB, 6, [2]],
    ['in the metadata', METADATA_OFFSET / MiB, 6, [2]],
    ['in the table itself', BAT_OFFSET / MiB, 6, [2]],
    ['reserved state 4', 6, 4, [2]],
    ['reserved state 5', 6, 5, [2]],
    ['partially present without a parent', 6, 7, [2]],
    ['the place of another block', 5, 6, [1, 2]],
  ];
  for (const [name, offsetMib, state, bad] of cases) {
    const { path, model, layout } = make(folder);
    t.equal(layout.blockOffsets.get(1), 5 * MiB);
    pokeEntry(path, 2, offsetMib, state);
    checkBlocks(t, openVhdx(path), model, bad, name);
  }
});

t.test('sector bitmaps', async (t) => {
  const folder = tempFolder(t);
  const sectors = 'd'.repeat(1024) + 'u'.repeat(1024);
  const pattern = sectors + 'd'.repeat(2048) + sectors;
  const model = stampedModel({ size: 3 * MiB, unitSize: 512, pattern, salt: 4 });
  for (const [name, offsetMib, state] of [
    ['missing', 0, 0],
    ['reserved state', 7, 3],
    ['past the end', 900, 6],
    ['in the header area', 0, 6],
    ['in a payload block', 4, 6],
  ] as const) {
    const { path, layout } = make(folder, { model, parent: PARENT });
    pokeEntry(path, layout.blocksPerChunk, offsetMib, state);
    checkBlocks(t, openVhdx(path), model, [0, 2], name);
  }
  const { path } = make(folder, { model, parent: PARENT });
  const image = openVhdx(path);
  t.throws(() => image.readAt(Buffer.alloc(512), 0, 600 * 1024, 512), /bug/, 'not its own sector');
  image.close();
});

t.test('files that end too early', async (t) => {
  const folder = tempFolder(t);
  const { path, model, layout } = make(folder);
  truncateSync(path, layout.fileSize - MiB / 2);
  const image = openVhdx(path);
  const target = Buffer.alloc(MiB / 2);
  image.readAt(target, 0, 3 * MiB, MiB / 2);
  t.ok(target.equals(model.content.subarray(3 * MiB, 3.5 * MiB)), 'what is left of a block reads');
  t.throws(() => image.readAt(target, 0, 3 * MiB + 1, MiB / 2), { code: 'damaged', errno: 'EIO' });
  image.close();
  for (const [size, message] of [
    [3 * MiB + 1000, /block allocation table .* does not lie in the file/],
    [MiB, /log .* does not lie in the file/],
    [100, /cut off/],
  ] as const) {
    truncateSync(path, size);
    t.throws(() => openVhdx(path), { code: 'damaged', message }, `cut to ${size}`);
  }
});

/** Changes a structure and makes its checksum right again. */
function resealed(
  bytes: Buffer,
  offset: number,
  size: number,
  change: (part: Buffer) => void,
): void {
  const part = bytes.subarray(offset, offset + size);
  change(part);
  seal(part);
}

type Change = (bytes: Buffer) => void;

function inHeaders(change: Change): Change {
  return (bytes) => {
    for (const offset of HEADER_OFFSETS) resealed(bytes, offset, HEADER_SIZE, change);
  };
}

function inRegions(change: Change): Change {
  return (bytes) => {
    for (const offset of REGION_TABLE_OFFSETS) resealed(bytes, offset, REGION_TABLE_SIZE, change);
  };
}

/** In the metadata region. */
function inMetadata(change: Change): Change {
  return (bytes) => change(bytes.subarray(METADATA_OFFSET));
}

const REGION_2 = REGION_TABLE.size + REGION_ENTRY.size;
const ITEM_1 = METADATA_TABLE.size;
const ITEMS = 64 * 1024;

const REFUSALS: readonly [string, string, RegExp, Change][] = [
  ['no signature', 'damaged', /no vhdxfile signature/, (bytes) => bytes.fill(0, 0, 8)],
  [
    'version 2',
    'not-supported',
    /VHDX version 2/,
    inHeaders((part) => part.writeUInt16LE(2, HEADER.offsetOf.version)),
  ],
  [
    'log version 1',
    'not-supported',
    /log version 1/,
    inHeaders((part) => {
      part.writeUInt16LE(1, HEADER.offsetOf.logVersion);
      part.fill(1, HEADER.offsetOf.logGuid, HEADER.offsetOf.logGuid + 16);
    }),
  ],
  [
    'log in the header area',
    'damaged',
    /log at 0/,
    inHeaders((part) => part.writeBigUInt64LE(0n, HEADER.offsetOf.logOffset)),
  ],
  [
    'log on the table',
    'damaged',
    /overlaps/,
    inHeaders((part) => part.writeBigUInt64LE(BigInt(BAT_OFFSET), HEADER.offsetOf.logOffset)),
  ],
  [
    'log past the end',
    'damaged',
    /does not lie in the file/,
    inHeaders((part) => part.writeBigUInt64LE(1n << 40n, HEADER.offsetOf.logOffset)),
  ],
  [
    'no regions',
    'damaged',
    /no block allocation table/,
    inRegions((part) => part.writeUInt32LE(0, 8)),
  ],
  ['one region', 'damaged', /no metadata region/, inRegions((part) => part.writeUInt32LE(1, 8))],
  [
    'a region twice',
    'damaged',
    /listed twice/,
    inRegions((part) => part.copy(part, REGION_2, REGION_TABLE.size, REGION_2)),
  ],
  [
    'regions that overlap',
    'damaged',
    /overlaps/,
    inRegions((part) => part.writeBigUInt64LE(BigInt(BAT_OFFSET), REGION_2 + 16)),
  ],
  [
    'region that is not aligned',
    'damaged',
    /not aligned/,
    inRegions((part) => part.writeBigUInt64LE(BigInt(METADATA_OFFSET + 4096), REGION_2 + 16)),
  ],
  ['no metadata signature', 'damaged', /no signature/, inMetadata((part) => part.fill(0, 0, 8))],
  ['no items', 'damaged', /is missing/, inMetadata((part) => part.writeUInt16LE(0, 10))],
  ['too many items', 'damaged', /2048 entries/, inMetadata((part) => part.writeUInt16LE(2048, 10))],
  [
    'an item twice',
    'damaged',
    /listed twice/,
    inMetadata((part) =>
      part.copy(part, ITEM_1 + METADATA_ENTRY.size, ITEM_1, ITEM_1 + METADATA_ENTRY.size),
    ),
  ],
  [
    'an item outside the region',
    'damaged',
    /does not fit/,
    inMetadata((part) => part.writeUInt32LE(MiB - 4, ITEM_1 + METADATA_ENTRY.offsetOf.offset)),
  ],
  [
    'a size that is no multiple of a sector',
    'damaged',
    /virtual size 4194305/,
    inMetadata((part) => part.writeBigUInt64LE(4194305n, ITEMS + 8)),
  ],
  [
    'a disk of more than 64 TiB',
    'damaged',
    /above the 64 TiB/,
    inMetadata((part) => part.writeBigUInt64LE(1n << 47n, ITEMS + 8)),
  ],
  [
    'a disk that the table is too short for',
    'damaged',
    /has room for 131072 entries/,
    inMetadata((part) => part.writeBigUInt64LE(1n << 40n, ITEMS + 8)),
  ],
  [
    'blocks of 512 MiB',
    'damaged',
    /block size/,
    inMetadata((part) => part.writeUInt32LE(2 ** 29, ITEMS)),
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
    t.throws(() => openVhdx(path), { code, message }, name);
    t.throws(
      () => openVhdx(path),
      { message: new RegExp(`^${path}: `) },
      `${name}: names the file`,
    );
  }
});

t.test('the version of a log that is empty does not matter', async (t) => {
  const { path, model } = make(tempFolder(t));
  const bytes = readFileSync(path);
  inHeaders((part) => part.writeUInt16LE(1, HEADER.offsetOf.logVersion))(bytes);
  writeFileSync(path, bytes);
  const image = openVhdx(path);
  const read = Buffer.alloc(model.size);
  image.readAt(read, 0, 0, read.length);
  image.close();
  t.ok(read.equals(model.content));
});

t.test('unknown regions and items: required ones are refused, others ignored', async (t) => {
  const folder = tempFolder(t);
  const plans: [string, Partial<VhdxPlan>, RegExp | undefined][] = [
    ['region', { extraRegions: [{ guid: UNKNOWN, required: 0 }] }, undefined],
    ['required region', { extraRegions: [{ guid: UNKNOWN, required: 1 }] }, /region 12345678-/],
    ['item', { extraItems: [{ id: UNKNOWN, flags: 2 }] }, undefined],
    ['required item', { extraItems: [{ id: UNKNOWN, flags: 4 }] }, /metadata item 12345678-/],
    ['required user item', { extraItems: [{ id: UNKNOWN, flags: 5 }] }, /metadata item 12345678-/],
  ];
  for (const [name, plan, message] of plans) {
    const { path, model } = make(folder, plan);
    if (message === undefined) checkBlocks(t, openVhdx(path), model, [], name);
    else t.throws(() => openVhdx(path), { code: 'not-supported', message }, name);
  }
});

t.test('one bad copy of two', async (t) => {
  const folder = tempFolder(t);
  const places = [...HEADER_OFFSETS, ...REGION_TABLE_OFFSETS];
  for (const offset of places) {
    const { path, model } = make(folder);
    poke(path, offset + 60, Buffer.alloc(4, 0xff));
    const image = openVhdx(path);
    t.match(image.info().notes.join(), /[12] of 2 is damaged/, `copy at ${offset}`);
    checkBlocks(t, image, model, [], `copy at ${offset}`);
  }
});
