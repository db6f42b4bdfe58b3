/** qcow2 images with one thing wrong. */
import { u32be, u64be } from '../../../src/common/struct.js';
import {
  COMPRESSION_TYPE_OFFSET,
  HEADER_V2,
  HEADER_V3,
} from '../../../src/formats/qcow2/qcow2-layout.js';
import type { Random } from '../../support/random.js';
import {
  between,
  bigWithBit,
  type Damage,
  damaged,
  fieldOf,
  type Kind,
  type Made,
  type Rows,
  type Scene,
  someDataUnit,
} from './kind.js';
import { type Layout, makeQcow2 } from './qcow2-specimen.js';

const at = HEADER_V2.offsetOf;
const V3 = HEADER_V2.size;
const at3 = HEADER_V3.offsetOf;
const COPIED = 1n << 63n;
const COMPRESSED = 1n << 62n;

/** Where the entry of a guest cluster lies. */
function entryOf(layout: Layout, cluster: number, entrySize = 8): number {
  const perTable = layout.clusterSize / entrySize;
  const table = layout.l2Offsets.get(Math.floor(cluster / perTable))!;
  return table + (cluster % perTable) * entrySize;
}

/** Writes the entry of some cluster with data. */
function badEntry(value: (layout: Layout, random: Random) => bigint): Damage<Layout> {
  return (file, { layout, model }, random) => {
    const cluster = someDataUnit(model, random);
    file.writeBigUInt64BE(value(layout, random), entryOf(layout, cluster));
  };
}

/** Writes the L1 entry of some L2 table. */
function badTable(value: (layout: Layout, random: Random) => bigint): Damage<Layout> {
  return (file, { layout }, random) => {
    const index = random.pick([...layout.l2Offsets.keys()]);
    file.writeBigUInt64BE(value(layout, random), layout.l1Offset + index * 8);
  };
}

const u32 = fieldOf<number, Layout>(u32be);
const u64 = fieldOf<bigint, Layout>(u64be);

function setBit(offset: number, low: number, high: number): Damage<Layout> {
  return (file, _, random) => {
    const bit = 1n << BigInt(between(random, low, high));
    file.writeBigUInt64BE(file.readBigUInt64BE(offset) | bit, offset);
  };
}

const farOut = (random: Random, { layout }: Made<Layout>) =>
  bigWithBit(random, 40, 55) & ~BigInt(layout.clusterSize - 1);
const unaligned = (layout: Layout, random: Random, offset: number) =>
  BigInt(offset + 512 * (1 + random.below(Math.max(1, layout.clusterSize / 512 - 1))));

const HEADERS: Rows<Layout> = [
  ['version', 'refuse', u32(at.version, (random) => between(random, 4, 2 ** 32 - 1))],
  ['version 0', 'refuse', u32(at.version, () => 0)],
  ['clusters below 512 bytes', 'refuse', u32(at.clusterBits, (random) => random.below(9))],
  ['clusters above 2 MiB', 'refuse', u32(at.clusterBits, (random) => between(random, 22, 63))],
  [
    'cluster bits without sense',
    'refuse',
    u32(at.clusterBits, (random) => between(random, 64, 2 ** 32 - 1)),
  ],
  ['a size above 2^62', 'refuse', u64(at.size, (random) => bigWithBit(random, 62, 63))],
  [
    'a size that the L1 table is too short for',
    'refuse',
    u64(at.size, (random, { layout }) => {
      const { clusterSize } = layout;
      const room = Math.max(1, layout.l2Offsets.size) * (clusterSize / 8) * clusterSize;
      return BigInt(room) * BigInt(between(random, 300, 3000));
    }),
  ],
  [
    'an L1 table of GiB',
    'refuse',
    u32(at.l1Size, (random) => between(random, 2 ** 25, 2 ** 32 - 1)),
  ],
  ['no L1 table', 'refuse', u32(at.l1Size, () => 0)],
  ['an L1 table past the end', 'refuse', u64(at.l1TableOffset, farOut)],
  [
    'an L1 table past 2^56',
    'refuse',
    u64(at.l1TableOffset, (random) => bigWithBit(random, 56, 63)),
  ],
  [
    'an unaligned L1 table',
    'refuse',
    u64(at.l1TableOffset, (random, { layout }) =>
      BigInt(layout.l1Offset + between(random, 1, 511)),
    ),
  ],
  ['an L1 table in the header', 'refuse', u64(at.l1TableOffset, () => 0n)],
  ['a cipher', 'refuse', u32(at.cryptMethod, (random) => random.pick([1, 2]))],
  ['an unknown cipher', 'refuse', u32(at.cryptMethod, (random) => between(random, 3, 2 ** 32 - 1))],
  ['an unknown feature', 'refuse', setBit(V3 + at3.incompatibleFeatures, 5, 63)],
  ['not closed', 'ok', setBit(V3 + at3.incompatibleFeatures, 0, 0)],
  ['marked corrupt', 'careful', setBit(V3 + at3.incompatibleFeatures, 1, 1)],
  ['an unknown compatible feature', 'ok', setBit(V3 + at3.compatibleFeatures, 1, 63)],
  ['an unknown autoclear feature', 'ok', setBit(V3 + at3.autoclearFeatures, 2, 63)],
  ['a data file without a name', 'refuse', setBit(V3 + at3.incompatibleFeatures, 2, 2)],
  ['a compression bit without its type', 'refuse', setBit(V3 + at3.incompatibleFeatures, 3, 3)],
  [
    'an unknown compression',
    'refuse',
    (file, _, random) => {
      file.writeBigUInt64BE(8n, V3 + at3.incompatibleFeatures);
      file[COMPRESSION_TYPE_OFFSET] = between(random, 2, 255);
    },
  ],
  [
    'reference counts of 128 bits',
    'refuse',
    u32(V3 + at3.refcountOrder, (random) => between(random, 7, 2 ** 32 - 1)),
  ],
  ['a short header', 'refuse', u32(V3 + at3.headerLength, (random) => random.below(104))],
  [
    'a header without end',
    'refuse',
    u32(V3 + at3.headerLength, (random) => between(random, 2 ** 21 + 8, 2 ** 32 - 1)),
  ],
  [
    'an unaligned header',
    'refuse',
    u32(V3 + at3.headerLength, (random) => 112 + between(random, 1, 7)),
  ],
  [
    'an extension without end',
    'refuse',
    (file, _, random) => {
      file.writeUInt32BE(between(random, 1, 2 ** 32 - 1), 112);
      file.writeUInt32BE(between(random, 2 ** 21, 2 ** 32 - 1), 116);
    },
  ],
  [
    'an unknown extension',
    'ok',
    (file, _, random) => {
      file.writeUInt32BE(between(random, 1, 0x40000000), 112);
      file.writeUInt32BE(between(random, 1, 64), 116);
    },
  ],
  [
    'more snapshots than there may be',
    'refuse',
    u32(at.snapshotCount, (random) => between(random, 65_537, 2 ** 32 - 1)),
  ],
  [
    'snapshots past the end',
    'refuse',
    (file, made, random) => {
      file.writeUInt32BE(between(random, 1, 100), at.snapshotCount);
      file.writeBigUInt64BE(farOut(random, made), at.snapshotsOffset);
    },
  ],
  ['reference counts past the end', 'careful', u64(at.refcountTableOffset, farOut)],
  [
    'reference counts of rubbish',
    'careful',
    (file, { layout }, random) => {
      random.bytes(layout.clusterSize).copy(file, layout.refcountTableOffset);
    },
  ],
  ['cut in the header', 'refuse', (file, _, random) => file.subarray(0, between(random, 8, 103))],
];

const ENTRIES: Rows<Layout> = [
  [
    'an L2 table past the end',
    'io-error',
    badTable(
      (layout, random) => (bigWithBit(random, 40, 55) & ~BigInt(layout.clusterSize - 1)) | COPIED,
    ),
  ],
  [
    'an L2 table just past the end',
    'io-error',
    badTable((layout) => BigInt(layout.fileSize) | COPIED),
  ],
  [
    'reserved bits of the L1 table',
    'careful',
    badTable((layout, random) => BigInt(layout.l2Offsets.get(0) ?? 0) | bigWithBit(random, 56, 62)),
  ],
  [
    'a cluster past the end',
    'io-error',
    badEntry(
      (layout, random) => (bigWithBit(random, 40, 55) & ~BigInt(layout.clusterSize - 1)) | COPIED,
    ),
  ],
  ['a cluster in the header', 'io-error', badEntry(() => COPIED)],
  ['a cluster in the L1 table', 'io-error', badEntry((layout) => BigInt(layout.l1Offset) | COPIED)],
  [
    'a cluster in an L2 table',
    'io-error',
    badEntry((layout, random) => BigInt(random.pick([...layout.l2Offsets.values()])) | COPIED),
  ],
  [
    'a cluster in the refcount table',
    'io-error',
    badEntry((layout) => BigInt(layout.refcountTableOffset) | COPIED),
  ],
  [
    'reserved bits of an L2 entry',
    'careful',
    (file, { layout, model }, random) => {
      const offset = entryOf(layout, someDataUnit(model, random));
      const bits = 1n << BigInt(random.pick([between(random, 1, 8), between(random, 56, 61)]));
      file.writeBigUInt64BE(file.readBigUInt64BE(offset) | bits, offset);
    },
  ],
  [
    'cut in the data',
    'io-error',
    (file, { layout }, random) => {
      const first = random.pick([...layout.dataOffsets.values()]);
      return file.subarray(
        0,
        Math.max(layout.l1Offset + layout.clusterSize, first + random.below(layout.clusterSize)),
      );
    },
  ],
];

const larger = (scene: Scene) => makeQcow2(scene, { clusterBits: between(scene.random, 10, 16) });
const LARGE_CLUSTERS: Rows<Layout> = [
  [
    'an unaligned L2 table',
    'io-error',
    badTable(
      (layout, random) =>
        unaligned(layout, random, random.pick([...layout.l2Offsets.values()])) | COPIED,
    ),
  ],
  [
    'an unaligned cluster',
    'io-error',
    badEntry(
      (layout, random) =>
        unaligned(layout, random, random.pick([...layout.dataOffsets.values()])) | COPIED,
    ),
  ],
];

function packed({ random, ...scene }: Scene): Made<Layout> {
  const clusterBits = between(random, 10, 16);
  const compression = random.pick(['deflate', 'zstd'] as const);
  return makeQcow2(
    { random, ...scene },
    { clusterBits, compression, compressed: () => true, letters: 'du' },
  );
}

const PACKED: Rows<Layout> = [
  [
    'compressed rubbish',
    'io-error',
    (file, { layout, model }, random) => {
      const offset = layout.dataOffsets.get(someDataUnit(model, random))!;
      file.fill(0xff, offset, offset + 16);
    },
  ],
  [
    'compressed, past the end',
    'io-error',
    badEntry((layout, random) => COMPRESSED | BigInt(layout.fileSize + random.below(2 ** 30))),
  ],
  [
    'compressed, in a table',
    'io-error',
    badEntry((layout) => COMPRESSED | BigInt(layout.l1Offset)),
  ],
  [
    'compressed, of another cluster',
    'careful',
    badEntry(
      (layout, random) => COMPRESSED | BigInt(random.pick([...layout.dataOffsets.values()]) + 1),
    ),
  ],
];

function subclusters({ random, ...scene }: Scene): Made<Layout> {
  return makeQcow2(
    { random, ...scene },
    { clusterBits: between(random, 14, 16), extendedL2: true, letters: 'd' },
  );
}

const SUBCLUSTERS: Rows<Layout> = [
  [
    'a subcluster that is zero and data',
    'io-error',
    (file, { layout, model }, random) => {
      const entry = entryOf(layout, Math.floor(someDataUnit(model, random) / 32), 16);
      const bit = random.below(32);
      file.writeBigUInt64BE((1n << BigInt(32 + bit)) | (1n << BigInt(bit)), entry + 8);
    },
  ],
  [
    'subclusters of no cluster',
    'io-error',
    (file, { layout, model }, random) => {
      file.writeBigUInt64BE(0n, entryOf(layout, Math.floor(someDataUnit(model, random) / 32), 16));
    },
  ],
];

export const QCOW2_KINDS: readonly Kind[] = [
  ...damaged(makeQcow2, HEADERS),
  ...damaged(makeQcow2, ENTRIES),
  ...damaged(larger, LARGE_CLUSTERS),
  ...damaged(packed, PACKED),
  ...damaged(subclusters, SUBCLUSTERS),
];
