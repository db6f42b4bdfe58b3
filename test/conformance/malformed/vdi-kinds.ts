/** VDIs with one thing wrong. */
import { join } from 'node:path';
import { u32le, u64le } from '../../../src/common/struct.js';
import { KiB } from '../../../src/common/units.js';
import type { Random } from '../../support/random.js';
import { writeVdi } from '../../support/vdi-writer.js';
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
  someModel,
} from './kind.js';

interface Layout {
  readonly extra: number;
  readonly mapOffset: number;
}

function make({ folder, random }: Scene): Made<Layout> {
  const unitSize = random.pick([4 * KiB, 64 * KiB, 256 * KiB]);
  const model = someModel(random, { unitSize, units: between(random, 4, 32), letters: 'dduz' });
  const layout = { extra: random.pick([0, 512]), mapOffset: 512 * between(random, 1, 8) };
  const path = join(folder, 'disk.vdi');
  writeVdi(path, model, layout);
  return { path, model, layout };
}

const u32 = fieldOf<number, Layout>(u32le);
const u64 = fieldOf<bigint, Layout>(u64le);

function badEntry(value: (random: Random, made: Made<Layout>) => number): Damage<Layout> {
  return (file, made, random) => {
    const block = someDataUnit(made.model, random);
    file.writeUInt32LE(value(random, made), made.layout.mapOffset + block * 4);
  };
}

const dataBlocks = ({ model }: Made<Layout>) =>
  model.states.filter((state) => state === 'data').length;

const TABLE: Rows<Layout> = [
  ['version', 'refuse', u32(68, (random) => between(random, 2, 65535) * 65536 + 1)],
  ['header size', 'refuse', u32(72, (random) => random.below(348))],
  ['type', 'refuse', u32(76, (random) => random.pick([0, 3, between(random, 5, 2 ** 32 - 1)]))],
  ['differencing without a parent', 'refuse', u32(76, () => 4)],
  ['a map past the end', 'refuse', u32(340, (random) => between(random, 2 ** 28, 2 ** 32 - 1))],
  ['a map in the header', 'refuse', u32(340, (random) => random.below(400))],
  ['data past 2^31', 'careful', u32(344, (random) => between(random, 2 ** 31, 2 ** 32 - 1))],
  ['data in the map', 'refuse', u32(344, (_, { layout }) => layout.mapOffset)],
  ['sectors of 4 KiB', 'refuse', u32(360, (random) => random.pick([0, 256, 4096]))],
  ['a size above 2^47', 'refuse', u64(368, (random) => bigWithBit(random, 47, 63))],
  ['no size', 'refuse', u64(368, () => 0n)],
  [
    'a size that the map is too short for',
    'refuse',
    u64(368, (random, { model }) => BigInt(model.size + between(random, 1, 2 ** 30))),
  ],
  ['blocks of no bytes', 'refuse', u32(376, () => 0)],
  [
    'blocks of odd bytes',
    'refuse',
    u32(376, (random) => between(random, 1, 2 ** 20) * 512 + between(random, 1, 511)),
  ],
  ['extra bytes', 'refuse', u32(380, (random) => between(random, 1, 511))],
  ['a map of GiB', 'refuse', u32(384, (random) => between(random, 2 ** 28, 2 ** 32 - 1))],
  [
    'a map of too few blocks',
    'refuse',
    u32(384, (random, { model }) => random.below(model.states.length)),
  ],
  [
    'more blocks allocated than there are',
    'refuse',
    u32(388, (random, { model }) => between(random, model.states.length + 1, 2 ** 32 - 1)),
  ],
  [
    'a block past the end',
    'io-error',
    badEntry((random, made) => between(random, dataBlocks(made), 2 ** 31)),
  ],
  [
    'a block far past the end',
    'io-error',
    badEntry((random) => between(random, 2 ** 31, 2 ** 32 - 3)),
  ],
  ['a block in another one', 'careful', badEntry((random, made) => random.below(dataBlocks(made)))],
  [
    'cut in the data',
    'io-error',
    (file, { model, layout }, random) =>
      file.subarray(0, file.length - between(random, 1, model.unitSize + layout.extra)),
  ],
  [
    'cut in the map',
    'refuse',
    (file, { layout, model }, random) =>
      file.subarray(0, layout.mapOffset + random.below(model.states.length * 4)),
  ],
  ['cut in the header', 'refuse', (file, _, random) => file.subarray(0, between(random, 68, 455))],
];

export const VDI_KINDS: readonly Kind[] = damaged(make, TABLE);
