/** VMDK descriptors with one thing wrong, and what they say of other files. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { KiB } from '../../../src/common/units.js';
import type { Random } from '../../support/random.js';
import { writeMonolithic } from '../../support/vmdk-writer.js';
import { hostileKinds } from './hostile-names.js';
import {
  between,
  bigWithBit,
  type Expectation,
  type Kind,
  type Scene,
  type Specimen,
} from './kind.js';
import { CID, extents, modelOf, monolithic } from './vmdk-specimen.js';

/** A disk that consists of what the lines say. */
function consistingOf({ folder }: Scene, text: string): Specimen {
  const path = join(folder, 'disk.vmdk');
  writeFileSync(path, text);
  return { path, content: Buffer.alloc(0) };
}

/** A descriptor of its own, and what is beside it. */
function described(name: string, expect: Expectation, write: (scene: Scene) => string): Kind {
  return {
    name,
    expect,
    make: (scene) => consistingOf(scene, write(scene)),
  };
}

const SOUND = extents('RW 8 ZERO');

const LINES: readonly Kind[] = (
  [
    ['no extents', () => extents()],
    [
      'a negative extent',
      (random: Random) => extents(`RW -${between(random, 1, 10 ** 9)} FLAT "x" 0`),
    ],
    ['an extent of no sectors', () => extents('RW 0 ZERO')],
    ['an extent above 2^37', (random: Random) => extents(`RW ${bigWithBit(random, 38, 70)} ZERO`)],
    [
      'extents above 64 TiB',
      (random: Random) =>
        extents(...Array.from({ length: between(random, 3, 9) }, () => `RW ${2 ** 36} ZERO`)),
    ],
    [
      'an unknown extent',
      (random: Random) =>
        extents(`RW 8 ${random.pick(['HOLE', 'VMFSRDM', 'PARTITIONED', 'X'])} "x"`),
    ],
    ['an extent without its file', () => extents('RW 8 FLAT')],
    ['an extent without access', () => extents('NOACCESS 8 ZERO')],
    [
      'more extents than there may be',
      (random: Random) =>
        extents(...Array.from({ length: between(random, 4097, 20_000) }, () => 'RW 1 ZERO')),
    ],
    ['nonsense', (random: Random) => extents(random.bytes(30).toString('hex'))],
    ['no version', () => SOUND.replace('version=1', '')],
    [
      'version of the descriptor',
      (random: Random) => SOUND.replace('version=1', `version=${between(random, 5, 10 ** 9)}`),
    ],
    ['no content identity', () => SOUND.replace(/^CID=.*$/m, '')],
    ['a content identity that is no number', () => SOUND.replace(/^CID=.*$/m, 'CID=zzz')],
    [
      'a descriptor above 1 MiB',
      (random: Random) => SOUND + '#'.repeat(2 ** 20 + random.below(2 ** 20)),
    ],
  ] as const
).map(([name, write]) => described(`descriptor: ${name}`, 'refuse', ({ random }) => write(random)));

const LONG_LINE = described(
  'descriptor: lines without end',
  'careful',
  ({ random }) => SOUND + 'a='.repeat(between(random, 1000, 100_000)),
);

const EXTENTS = hostileKinds('extent', (scene, nameOf) => {
  const secret = join(scene.outside, 'secret.img');
  writeFileSync(secret, Buffer.alloc(64 * KiB, 's'));
  const named = nameOf(secret).replaceAll('"', "'");
  const kind = scene.random.pick(['FLAT', 'VMFS']);
  return consistingOf(scene, extents(`RW 128 ${kind} "${named}" 0`));
});

const OWN_EXTENTS: readonly Kind[] = [
  described('extent: itself', 'refuse', ({ random }) =>
    extents(`RW 128 ${random.pick(['SPARSE', 'VMFSSPARSE', 'SESPARSE'])} "disk.vmdk"`),
  ),
  described('extent: shorter than it says', 'careful', ({ folder, random }) => {
    writeFileSync(join(folder, 'flat.img'), Buffer.alloc(512 * random.below(128)));
    return extents('RW 128 FLAT "flat.img" 0');
  }),
  described('extent: an offset past its end', 'careful', ({ folder, random }) => {
    writeFileSync(join(folder, 'flat.img'), Buffer.alloc(64 * KiB));
    return extents(`RW 128 FLAT "flat.img" ${between(random, 128, 2 ** 36)}`);
  }),
];

const PARENTS = hostileKinds('parent', (scene, nameOf) => {
  const { path: secret } = monolithic({ ...scene, folder: scene.outside });
  const parentName = nameOf(secret).replaceAll('"', "'");
  const path = join(scene.folder, 'disk.vmdk');
  const model = modelOf(scene.random);
  writeMonolithic(path, model, { parentCid: CID, parentName });
  return { path, content: model.content };
});

const RINGS: readonly Kind[] = [1, 2, 3].map((length) => ({
  name: `a ring of ${length}`,
  expect: 'refuse',
  make({ folder, random }) {
    const model = modelOf(random);
    for (let index = 0; index < length; index += 1) {
      const parentName = `${(index + 1) % length}.vmdk`;
      writeMonolithic(join(folder, `${index}.vmdk`), model, {
        cid: CID,
        parentCid: CID,
        parentName,
      });
    }
    return { path: join(folder, '0.vmdk'), content: model.content };
  },
}));

export const VMDK_DESCRIPTORS: readonly Kind[] = [
  ...LINES,
  LONG_LINE,
  ...EXTENTS,
  ...OWN_EXTENTS,
  ...PARENTS,
  ...RINGS,
];
