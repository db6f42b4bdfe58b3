/** VHDs with one thing wrong; their checksums are right unless that is what is wrong. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { KiB, MiB } from '../../../src/common/units.js';
import { DYNAMIC_HEADER, FOOTER, LOCATOR_RELATIVE } from '../../../src/formats/vhd/vhd-layout.js';
import type { Random } from '../../support/random.js';
import {
  HEADER_OFFSET,
  sealVhd,
  TABLE_OFFSET,
  type VhdLayout,
  type VhdPlan,
  writeVhd,
} from '../../support/vhd-writer.js';
import { hostileKinds } from './hostile-names.js';
import {
  between,
  bigWithBit,
  type Damage,
  damaged,
  flip,
  type Kind,
  type Made,
  type Rows,
  type Scene,
  type Specimen,
  someModel,
  specimenOf,
} from './kind.js';

interface Layout extends VhdLayout {
  readonly blockSize: number;
}

const PARENT_UUID = 'aaaaaaaa-0000-4000-8000-000000000001';
const at = FOOTER.offsetOf;
const inHeader = DYNAMIC_HEADER.offsetOf;

function make(
  { folder, random }: Pick<Scene, 'folder' | 'random'>,
  { name = 'disk.vhd', ...plan }: Partial<Omit<VhdPlan, 'model'>> & { name?: string } = {},
): Made<Layout> {
  const blockSize = random.pick([4 * KiB, 64 * KiB, 512 * KiB]);
  const unitSize = blockSize / random.pick([1, 2, 8]);
  const units = between(random, 16, Math.min(200, (4 * MiB) / unitSize));
  const model = someModel(random, { unitSize, units, letters: 'ddu' });
  const path = join(folder, name);
  const layout = writeVhd(path, { ...plan, model, blockSize });
  return { path, model, layout: { ...layout, blockSize } };
}

/** Changes both footers. */
function footers(
  change: (footer: Buffer, random: Random, made: Made<Layout>) => void,
): Damage<Layout> {
  return (file, made, random) => {
    const last = file.subarray(-FOOTER.size);
    change(last, random, made);
    sealVhd(last, at.checksum);
    last.copy(file, 0);
  };
}

function header(
  change: (header: Buffer, random: Random, made: Made<Layout>) => void,
): Damage<Layout> {
  return (file, made, random) => {
    const part = file.subarray(HEADER_OFFSET, HEADER_OFFSET + DYNAMIC_HEADER.size);
    change(part, random, made);
    sealVhd(part, inHeader.checksum);
  };
}

/** Writes the table's entry of a block that has data. */
function badEntry(
  sector: (random: Random, made: Made<Layout>, file: Buffer) => number,
): Damage<Layout> {
  return (file, made, random) => {
    const block = random.pick([...made.layout.blockOffsets.keys()]);
    file.writeUInt32BE(sector(random, made, file), TABLE_OFFSET + block * 4);
  };
}

const DYNAMIC: Rows<Layout> = [
  [
    'disk type',
    'refuse',
    footers((b, random) =>
      b.writeUInt32BE(random.pick([0, 1, between(random, 5, 2 ** 32 - 1)]), at.diskType),
    ),
  ],
  [
    'major version',
    'refuse',
    footers((b, random) => b.writeUInt16BE(between(random, 2, 65535), at.version)),
  ],
  ['no size', 'refuse', footers((b) => b.writeBigUInt64BE(0n, at.currentSize))],
  [
    'a size above 2^50',
    'refuse',
    footers((b, random) => b.writeBigUInt64BE(bigWithBit(random, 50, 63), at.currentSize)),
  ],
  [
    'a size above 2040 GiB',
    'refuse',
    footers((b, random) => b.writeBigUInt64BE(bigWithBit(random, 41, 49), at.currentSize)),
  ],
  [
    'a size that the table is too short for',
    'refuse',
    footers((b, random, { model, layout }) =>
      b.writeBigUInt64BE(
        BigInt(model.size + layout.blockSize * between(random, 1, 1000)),
        at.currentSize,
      ),
    ),
  ],
  [
    'a header past the end',
    'refuse',
    footers((b, random) => b.writeBigUInt64BE(bigWithBit(random, 40, 63), at.dataOffset)),
  ],
  [
    'a header in the table',
    'refuse',
    footers((b) => b.writeBigUInt64BE(BigInt(TABLE_OFFSET), at.dataOffset)),
  ],
  [
    'no cookie of the header',
    'refuse',
    header((b, random) => b.writeUInt8(random.below(0x60), random.below(8))),
  ],
  [
    'version of the header',
    'refuse',
    header((b, random) => b.writeUInt16BE(between(random, 2, 65535), inHeader.version)),
  ],
  [
    'checksum of the header',
    'refuse',
    (file, _, random) => {
      const where = HEADER_OFFSET + between(random, 100, DYNAMIC_HEADER.size - 1);
      flip(file, where, random);
    },
  ],
  ['blocks of no bytes', 'refuse', header((b) => b.writeUInt32BE(0, inHeader.blockSize))],
  [
    'blocks of odd bytes',
    'refuse',
    header((b, random) =>
      b.writeUInt32BE(
        between(random, 1, 2 ** 22) * 512 + between(random, 1, 511),
        inHeader.blockSize,
      ),
    ),
  ],
  [
    'blocks of a part of a sector',
    'refuse',
    header((b, random) => b.writeUInt32BE(between(random, 1, 511), inHeader.blockSize)),
  ],
  [
    'a table past the end',
    'refuse',
    header((b, random) => b.writeBigUInt64BE(bigWithBit(random, 33, 63), inHeader.tableOffset)),
  ],
  [
    'a table on the header',
    'refuse',
    header((b, random) =>
      b.writeBigUInt64BE(BigInt(HEADER_OFFSET + 512 * random.below(2)), inHeader.tableOffset),
    ),
  ],
  ['a table on the footer', 'refuse', header((b) => b.writeBigUInt64BE(0n, inHeader.tableOffset))],
  [
    'a table of GiB',
    'refuse',
    header((b, random) =>
      b.writeUInt32BE(between(random, 2 ** 28, 2 ** 32 - 1), inHeader.maxTableEntries),
    ),
  ],
  [
    'a table of too few entries',
    'refuse',
    header((b, random, { model, layout }) => {
      const needed = Math.ceil(model.size / layout.blockSize);
      b.writeUInt32BE(random.below(needed), inHeader.maxTableEntries);
    }),
  ],
  ['a block past the end', 'io-error', badEntry((random) => between(random, 2 ** 22, 2 ** 32 - 2))],
  ['a block in the footer', 'io-error', badEntry((_, { layout }) => layout.footerOffset / 512)],
  ['a block in the header', 'io-error', badEntry((random) => random.below(3))],
  ['a block in the table', 'io-error', badEntry(() => TABLE_OFFSET / 512)],
  [
    'a block in another one',
    'careful',
    badEntry(
      (random, { layout }) =>
        random.pick([...layout.blockOffsets.values()]) / 512 + between(random, 0, 3),
    ),
  ],
  [
    'one bad footer',
    'careful',
    (file, _, random) => {
      const where = random.pick([0, file.length - FOOTER.size]) + between(random, 8, 90);
      flip(file, where, random);
    },
  ],
  [
    'two bad footers',
    'refuse',
    (file, _, random) => {
      const where = between(random, 8, 80);
      for (const start of [0, file.length - FOOTER.size])
        file[start + where] = file[start + where]! ^ 0x55;
    },
  ],
  ['no footer at the end', 'careful', (file) => file.subarray(0, -FOOTER.size)],
  [
    'cut in the data',
    'io-error',
    (file, { layout }, random) => {
      const last = Math.max(...layout.blockOffsets.values());
      return file.subarray(0, last + layout.bitmapSize - random.below(100));
    },
  ],
  [
    'cut in the table',
    'refuse',
    (file, _, random) => file.subarray(0, TABLE_OFFSET - random.below(TABLE_OFFSET - 8)),
  ],
];

const FIXED: Rows<Layout> = [
  [
    'fixed: the wrong footer',
    'refuse',
    (file, { model }, random) => {
      const where = model.size + between(random, 8, 80);
      flip(file, where, random);
    },
  ],
  [
    'fixed: a part is missing',
    'refuse',
    (file, { model }, random) => {
      const cut = 512 * between(random, 1, model.size / 512 - 1);
      return Buffer.concat([file.subarray(0, model.size - cut), file.subarray(model.size)]);
    },
  ],
  [
    'fixed: more before the footer',
    'ok',
    (file, { model }, random) => {
      const more = Buffer.alloc(512 * between(random, 1, 100));
      return Buffer.concat([file.subarray(0, model.size), more, file.subarray(model.size)]);
    },
  ],
];

function child(scene: Scene, name: string, plan: Partial<VhdPlan> = {}): Specimen {
  const locators = [{ code: LOCATOR_RELATIVE, data: Buffer.from(name, 'utf16le') }];
  const parent = { uuid: PARENT_UUID, name: name.slice(0, 255), locators };
  return specimenOf(make(scene, { type: 'differencing', parent, ...plan }));
}

const PARENTS = hostileKinds('parent', (scene, nameOf) => {
  const { path: secret } = make(
    { ...scene, folder: scene.outside },
    { name: 'secret.vhd', uuid: PARENT_UUID },
  );
  const named = nameOf(secret);
  return child(scene, scene.random.pick([named, named.replaceAll('/', '\\')]));
});

const WRONG_PARENTS: readonly Kind[] = [
  {
    name: 'parent: another disk',
    expect: 'refuse',
    make(scene) {
      make(scene, { name: 'base.vhd', uuid: 'bbbbbbbb-0000-4000-8000-000000000001' });
      return child(scene, 'base.vhd');
    },
  },
  {
    name: 'parent: no VHD',
    expect: 'refuse',
    make(scene) {
      writeFileSync(join(scene.folder, 'base.vhd'), scene.random.bytes(MiB));
      return child(scene, 'base.vhd');
    },
  },
  {
    name: 'parent: itself',
    expect: 'refuse',
    make: (scene) => child(scene, 'disk.vhd', { uuid: PARENT_UUID }),
  },
  {
    name: 'parent: none named',
    expect: 'refuse',
    make: (scene) => child(scene, '', { parent: { uuid: PARENT_UUID } }),
  },
];

export const VHD_KINDS: readonly Kind[] = [
  ...damaged(make, DYNAMIC),
  ...damaged((scene) => make(scene, { type: 'fixed' }), FIXED),
  ...PARENTS,
  ...WRONG_PARENTS,
];
