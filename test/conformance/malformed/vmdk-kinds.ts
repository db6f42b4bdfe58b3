/** VMDKs in one file, or in a stream, with one thing wrong. */
import { join } from 'node:path';
import { u32le, u64le } from '../../../src/common/struct.js';
import { SECTOR_SIZE } from '../../../src/common/units.js';
import type { Random } from '../../support/random.js';
import { writeMonolithic } from '../../support/vmdk-writer.js';
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
import { modelOf, monolithic } from './vmdk-specimen.js';

/** Fields of a sparse extent's header. */
const at = {
  version: 4,
  flags: 8,
  capacity: 12,
  grainSize: 20,
  descriptorOffset: 28,
  descriptorSize: 36,
  tableEntries: 44,
  directory: 56,
  unclean: 72,
  newlines: 73,
  compression: 77,
} as const;

/** @param places where the directory may lie. */
function streamed(...places: ('start' | 'end')[]): (scene: Scene) => Made<undefined> {
  return ({ folder, random }) => {
    const model = modelOf(random);
    const path = join(folder, 'disk.vmdk');
    writeMonolithic(path, model, { stream: random.pick(places) });
    return { path, model, layout: undefined };
  };
}

const u32 = fieldOf<number, undefined>(u32le);
const u64 = fieldOf<bigint, undefined>(u64le);

/** Where the directory lies: at the end of a stream only its footer says so. */
function directoryOf(file: Buffer): number {
  const stated = file.readBigUInt64LE(at.directory);
  const sector =
    stated < 2n ** 63n ? stated : file.readBigUInt64LE(file.length - 1024 + at.directory);
  return Number(sector) * SECTOR_SIZE;
}

function entryOf(file: Buffer, grain: number): number {
  return file.readUInt32LE(directoryOf(file)) * SECTOR_SIZE + grain * 4;
}

function badEntry(sector: (random: Random, file: Buffer) => number): Damage<undefined> {
  return (file, { model }, random) => {
    const offset = entryOf(file, someDataUnit(model, random));
    file.writeUInt32LE(sector(random, file), offset);
  };
}

const SPARSE: Rows<undefined> = [
  [
    'version',
    'refuse',
    u32(at.version, (random) => random.pick([0, between(random, 4, 2 ** 32 - 1)])),
  ],
  [
    'an unknown flag',
    'refuse',
    (file, _, random) =>
      file.writeUInt32LE(
        (file.readUInt32LE(at.flags) | (1 << between(random, 18, 31))) >>> 0,
        at.flags,
      ),
  ],
  ['a capacity above 64 TiB', 'refuse', u64(at.capacity, (random) => bigWithBit(random, 38, 63))],
  ['no capacity', 'refuse', u64(at.capacity, () => 0n)],
  [
    'a capacity below the descriptor’s',
    'refuse',
    u64(at.capacity, (random, { model }) =>
      BigInt(between(random, 1, model.size / SECTOR_SIZE - 1)),
    ),
  ],
  ['grains of no bytes', 'refuse', u64(at.grainSize, () => 0n)],
  [
    'grains of three sectors',
    'refuse',
    u64(at.grainSize, (random) => BigInt(random.pick([3, 5, 6, 7, 100, 127]))),
  ],
  ['grains of GiB', 'refuse', u64(at.grainSize, (random) => bigWithBit(random, 33, 63))],
  ['tables of no entries', 'refuse', u32(at.tableEntries, () => 0)],
  [
    'tables of GiB',
    'refuse',
    u32(at.tableEntries, (random) => between(random, 2 ** 20, 2 ** 32 - 1)),
  ],
  ['a directory past the end', 'refuse', u64(at.directory, (random) => bigWithBit(random, 24, 62))],
  ['a directory in the header', 'refuse', u64(at.directory, () => 0n)],
  [
    'a descriptor past the end',
    'refuse',
    u64(at.descriptorOffset, (random) => bigWithBit(random, 24, 63)),
  ],
  ['a descriptor of GiB', 'refuse', u64(at.descriptorSize, (random) => bigWithBit(random, 22, 63))],
  ['no descriptor', 'refuse', u64(at.descriptorOffset, () => 0n)],
  [
    'a descriptor of rubbish',
    'refuse',
    (file, _, random) => {
      random.bytes(1024).copy(file, SECTOR_SIZE);
    },
  ],
  [
    'changed line ends',
    'refuse',
    (file, _, random) => {
      file.write(random.pick(['\n \n\n', '\r\n \r', '\n\n\r\n']), at.newlines);
    },
  ],
  [
    'an unknown compression',
    'refuse',
    (file, _, random) => file.writeUInt16LE(between(random, 1, 65535), at.compression),
  ],
  [
    'not closed',
    'ok',
    (file) => {
      file[at.unclean] = 1;
    },
  ],
  [
    'a table past the end',
    'io-error',
    (file, _, random) => {
      file.writeUInt32LE(between(random, 2 ** 24, 2 ** 32 - 1), directoryOf(file));
    },
  ],
  [
    'a table in the header',
    'careful',
    (file) => {
      file.writeUInt32LE(1, directoryOf(file));
    },
  ],
  ['a grain past the end', 'io-error', badEntry((random) => between(random, 2 ** 24, 2 ** 32 - 1))],
  ['a grain in the descriptor', 'io-error', badEntry((random) => between(random, 2, 19))],
  [
    'cut in the data',
    'careful',
    (file, { model }, random) =>
      file.subarray(0, file.length - 512 * between(random, 1, model.unitSize / 512)),
  ],
  ['cut in the header', 'refuse', (file, _, random) => file.subarray(0, between(random, 4, 511))],
  [
    'cut in the descriptor',
    'refuse',
    (file, _, random) => file.subarray(0, between(random, 512, 20 * 512)),
  ],
];

/** Changes what lies before a packed grain, or it. */
function badGrain(
  change: (file: Buffer, grain: number, random: Random) => void,
): Damage<undefined> {
  return (file, { model }, random) => {
    const entry = entryOf(file, someDataUnit(model, random));
    change(file, file.readUInt32LE(entry) * SECTOR_SIZE, random);
  };
}

const STREAM: Rows<undefined> = [
  [
    'stream: rubbish',
    'io-error',
    badGrain((file, grain) => file.fill(0xaa, grain + 12, grain + 24)),
  ],
  [
    'stream: a grain of no bytes',
    'io-error',
    badGrain((file, grain) => file.writeUInt32LE(0, grain + 8)),
  ],
  [
    'stream: a grain of GiB',
    'io-error',
    badGrain((file, grain, random) =>
      file.writeUInt32LE(between(random, 2 ** 28, 2 ** 32 - 1), grain + 8),
    ),
  ],
  [
    'stream: a grain of another place',
    'io-error',
    badGrain((file, grain, random) => {
      file.writeBigUInt64LE(file.readBigUInt64LE(grain) + bigWithBit(random, 7, 40), grain);
    }),
  ],
  [
    'stream: a grain past the end',
    'io-error',
    badEntry((random) => between(random, 2 ** 24, 2 ** 32 - 1)),
  ],
  ['stream: no markers in its header', 'careful', u32(at.flags, () => 0x10003)],
];

const FOOTED: Rows<undefined> = [
  [
    'stream: no footer',
    'refuse',
    (file, _, random) => file.subarray(0, file.length - 512 * between(random, 2, 3)),
  ],
  [
    'stream: a footer of another disk',
    'refuse',
    (file, _, random) => {
      const field = file.length - 1024 + random.pick([at.capacity, at.grainSize]);
      file.writeBigUInt64LE(file.readBigUInt64LE(field) + BigInt(between(random, 1, 1000)), field);
    },
  ],
  [
    'stream: a footer that points to a footer',
    'refuse',
    (file) => {
      file.fill(255, file.length - 1024 + at.directory, file.length - 1024 + at.directory + 8);
    },
  ],
];

export const VMDK_KINDS: readonly Kind[] = [
  ...damaged(monolithic, SPARSE),
  ...damaged(streamed('start', 'end'), STREAM),
  ...damaged(streamed('end'), FOOTED),
];
