/** VHDXs with one thing wrong; their checksums are right unless that is what is wrong. */
import { MiB } from '../../../src/common/units.js';
import {
  HEADER,
  HEADER_OFFSETS,
  HEADER_SIZE,
  METADATA_ENTRY,
  METADATA_TABLE,
  METADATA_TABLE_SIZE,
  REGION_ENTRY,
  REGION_TABLE,
  REGION_TABLE_OFFSETS,
  REGION_TABLE_SIZE,
} from '../../../src/formats/vhdx/vhdx-layout.js';
import { createRandom, type Random } from '../../support/random.js';
import {
  BAT_OFFSET,
  LOG_OFFSET,
  METADATA_OFFSET,
  seal,
  type VhdxLayout,
} from '../../support/vhdx-writer.js';
import {
  between,
  bigWithBit,
  type Damage,
  damaged,
  flip,
  type Kind,
  type Made,
  type Rows,
  specimenOf,
} from './kind.js';
import { makeVhdx, UNKNOWN } from './vhdx-specimen.js';

const REGION_1 = REGION_TABLE.size;
const REGION_2 = REGION_1 + REGION_ENTRY.size;
const ITEM_1 = METADATA_TABLE.size;
/** Values of the items, in the writer's order: parameters, disk size, identity, sector sizes. */
const ITEMS = METADATA_TABLE_SIZE;
const at = HEADER.offsetOf;

type Change = (part: Buffer, random: Random, made: Made<VhdxLayout>) => void;

/** The same change in both copies of a structure. */
function copies(offsets: readonly number[], size: number, change: Change): Damage<VhdxLayout> {
  return (file, made, random) => {
    const seed = random.below(2 ** 31);
    for (const offset of offsets) {
      const part = file.subarray(offset, offset + size);
      change(part, createRandom(seed), made);
      seal(part);
    }
  };
}

const headers = (change: Change) => copies(HEADER_OFFSETS, HEADER_SIZE, change);
const regions = (change: Change) => copies(REGION_TABLE_OFFSETS, REGION_TABLE_SIZE, change);

function metadata(change: Change): Damage<VhdxLayout> {
  return (file, made, random) => {
    change(file.subarray(METADATA_OFFSET), random, made);
  };
}

function badEntry(
  offsetMib: (random: Random, made: Made<VhdxLayout>) => number,
  state?: (random: Random) => number,
): Damage<VhdxLayout> {
  return (file, made, random) => {
    const block = random.pick([...made.layout.blockOffsets.keys()]);
    const value = (BigInt(offsetMib(random, made)) << 20n) | BigInt(state?.(random) ?? 6);
    file.writeBigUInt64LE(value, BAT_OFFSET + block * 8);
  };
}

const STRUCTURES: Rows<VhdxLayout> = [
  [
    'two bad headers',
    'refuse',
    (file, _, random) => {
      for (const offset of HEADER_OFFSETS)
        flip(file, offset + between(random, 8, HEADER_SIZE - 1), random);
    },
  ],
  [
    'one bad header',
    'ok',
    (file, _, random) =>
      flip(file, random.pick(HEADER_OFFSETS) + between(random, 0, HEADER_SIZE - 1), random),
  ],
  [
    'version',
    'refuse',
    headers((b, random) =>
      b.writeUInt16LE(random.pick([0, between(random, 2, 65535)]), at.version),
    ),
  ],
  [
    'a log of odd length',
    'refuse',
    headers((b, random) => b.writeUInt32LE(MiB + between(random, 1, MiB - 1), at.logLength)),
  ],
  [
    'a log past the end',
    'refuse',
    headers((b, random) =>
      b.writeBigUInt64LE(bigWithBit(random, 30, 62) & ~(BigInt(MiB) - 1n), at.logOffset),
    ),
  ],
  ['a log in the header', 'refuse', headers((b) => b.writeBigUInt64LE(0n, at.logOffset))],
  [
    'a log on a region',
    'refuse',
    headers((b, random) =>
      b.writeBigUInt64LE(BigInt(random.pick([BAT_OFFSET, METADATA_OFFSET])), at.logOffset),
    ),
  ],
  [
    'an unaligned log',
    'refuse',
    headers((b, random) =>
      b.writeBigUInt64LE(BigInt(LOG_OFFSET + between(random, 1, MiB - 1)), at.logOffset),
    ),
  ],
  [
    'log version',
    'refuse',
    headers((b, random) => {
      b.writeUInt16LE(between(random, 1, 65535), at.logVersion);
      random.bytes(16).copy(b, at.logGuid);
    }),
  ],
  [
    'two bad region tables',
    'refuse',
    (file, _, random) => {
      for (const offset of REGION_TABLE_OFFSETS)
        flip(file, offset + random.below(REGION_TABLE_SIZE), random);
    },
  ],
  [
    'one bad region table',
    'ok',
    (file, _, random) =>
      flip(file, random.pick(REGION_TABLE_OFFSETS) + random.below(REGION_TABLE_SIZE), random),
  ],
  [
    'regions without end',
    'refuse',
    regions((b, random) => b.writeUInt32LE(between(random, 2048, 2 ** 32 - 1), 8)),
  ],
  ['no regions', 'refuse', regions((b, random) => b.writeUInt32LE(random.below(2), 8))],
  ['a region twice', 'refuse', regions((b) => b.copy(b, REGION_2, REGION_1, REGION_2))],
  [
    'a region past the end',
    'refuse',
    regions((b, random) =>
      b.writeBigUInt64LE(
        bigWithBit(random, 30, 62) & ~(BigInt(MiB) - 1n),
        random.pick([REGION_1, REGION_2]) + 16,
      ),
    ),
  ],
  [
    'a region in the header',
    'refuse',
    regions((b, random) => b.writeBigUInt64LE(0n, random.pick([REGION_1, REGION_2]) + 16)),
  ],
  [
    'an unaligned region',
    'refuse',
    regions((b, random) => {
      const field = random.pick([REGION_1, REGION_2]) + 16;
      b.writeBigUInt64LE(b.readBigUInt64LE(field) + BigInt(between(random, 1, MiB - 1)), field);
    }),
  ],
  [
    'regions that overlap',
    'refuse',
    regions((b, random) =>
      b.writeBigUInt64LE(BigInt(random.pick([BAT_OFFSET, LOG_OFFSET])), REGION_2 + 16),
    ),
  ],
  [
    'a region without length',
    'refuse',
    regions((b, random) => b.writeUInt32LE(0, random.pick([REGION_1, REGION_2]) + 24)),
  ],
  ['no signature of metadata', 'refuse', metadata((b, random) => flip(b, random.below(8), random))],
  [
    'metadata without end',
    'refuse',
    metadata((b, random) => b.writeUInt16LE(between(random, 2048, 65535), 10)),
  ],
  ['missing metadata', 'refuse', metadata((b, random) => b.writeUInt16LE(random.below(4), 10))],
  [
    'an item outside its region',
    'refuse',
    metadata((b, random) => {
      const entry = ITEM_1 + random.below(2) * METADATA_ENTRY.size;
      b.writeUInt32LE(
        between(random, MiB - 3, 2 ** 32 - 1),
        entry + METADATA_ENTRY.offsetOf.offset,
      );
    }),
  ],
  [
    'an item of GiB',
    'refuse',
    metadata((b, random) => {
      const entry = ITEM_1 + random.below(5) * METADATA_ENTRY.size;
      b.writeUInt32LE(
        between(random, 2 ** 21, 2 ** 32 - 1),
        entry + METADATA_ENTRY.offsetOf.length,
      );
    }),
  ],
  ['blocks of no bytes', 'refuse', metadata((b) => b.writeUInt32LE(0, ITEMS))],
  [
    'blocks of odd bytes',
    'refuse',
    metadata((b, random) => b.writeUInt32LE(MiB + between(random, 1, MiB - 1), ITEMS)),
  ],
  [
    'blocks of more than 256 MiB',
    'refuse',
    metadata((b, random) => b.writeUInt32LE(2 ** between(random, 29, 31), ITEMS)),
  ],
  ['no size', 'refuse', metadata((b) => b.writeBigUInt64LE(0n, ITEMS + 8))],
  [
    'a size of odd bytes',
    'refuse',
    metadata((b, random) => b.writeBigUInt64LE(BigInt(MiB + between(random, 1, 511)), ITEMS + 8)),
  ],
  [
    'a size above 64 TiB',
    'refuse',
    metadata((b, random) => b.writeBigUInt64LE(bigWithBit(random, 47, 63), ITEMS + 8)),
  ],
  [
    'a size that the table is too short for',
    'refuse',
    metadata((b, random) =>
      b.writeBigUInt64LE(BigInt(between(random, 2 ** 20, 2 ** 24)) * BigInt(MiB), ITEMS + 8),
    ),
  ],
  [
    'sectors of odd bytes',
    'refuse',
    metadata((b, random) =>
      b.writeUInt32LE(random.pick([0, 1, 256, 1024, 1234, 8192, 2 ** 31]), ITEMS + 32),
    ),
  ],
  ['a block past the end', 'io-error', badEntry((random) => between(random, 1000, 2 ** 43))],
  ['a block in the header', 'io-error', badEntry(() => 0)],
  ['a block in the log', 'io-error', badEntry(() => LOG_OFFSET / MiB)],
  [
    'a block in a region',
    'io-error',
    badEntry((random) => random.pick([BAT_OFFSET, METADATA_OFFSET]) / MiB),
  ],
  [
    'a block of a reserved state',
    'io-error',
    badEntry(
      (_, { layout }) => Math.min(...layout.blockOffsets.values()) / MiB,
      (random) => random.pick([4, 5]),
    ),
  ],
  [
    'a block partly there, without a parent',
    'io-error',
    badEntry(
      (_, { layout }) => Math.min(...layout.blockOffsets.values()) / MiB,
      () => 7,
    ),
  ],
  [
    'a block in another one',
    'careful',
    badEntry((random, { layout }) => random.pick([...layout.blockOffsets.values()]) / MiB),
  ],
  [
    'cut in the data',
    'io-error',
    (file, { layout, model }, random) => {
      const last = Math.max(...layout.blockOffsets.values());
      return file.subarray(0, last + random.below(Math.min(model.unitSize, file.length - last)));
    },
  ],
  [
    'cut in the structures',
    'refuse',
    (file, _, random) => file.subarray(0, between(random, 8, BAT_OFFSET)),
  ],
];

const UNKNOWNS: readonly Kind[] = (
  [
    ['an unknown region', 'ok', { extraRegions: [{ guid: UNKNOWN, required: 0 }] }],
    [
      'an unknown region that is required',
      'refuse',
      { extraRegions: [{ guid: UNKNOWN, required: 1 }] },
    ],
    ['an unknown item', 'ok', { extraItems: [{ id: UNKNOWN, flags: 2 }] }],
    ['an unknown item that is required', 'refuse', { extraItems: [{ id: UNKNOWN, flags: 6 }] }],
  ] as const
).map(([name, expect, plan]) => ({
  name,
  expect,
  make: (scene) => specimenOf(makeVhdx(scene, plan)),
}));

export const VHDX_KINDS: readonly Kind[] = [...damaged(makeVhdx, STRUCTURES), ...UNKNOWNS];
