/** Differencing VHDXs with one thing wrong: their bitmaps, and what they say of their parent. */
import { join } from 'node:path';
import { MiB } from '../../../src/common/units.js';
import type { Random } from '../../support/random.js';
import { BAT_OFFSET, type VhdxLayout, writeVhdx } from '../../support/vhdx-writer.js';
import { hostileKinds } from './hostile-names.js';
import {
  between,
  damaged,
  type Kind,
  type Made,
  type Rows,
  type Scene,
  specimenOf,
} from './kind.js';
import { makeVhdx, UNKNOWN } from './vhdx-specimen.js';

const PARENT_GUID = 'aaaaaaaa-0000-4000-8000-000000000001';

function child(scene: Scene, locator: Readonly<Record<string, string>>): Made<VhdxLayout> {
  return makeVhdx(scene, { parent: { parent_linkage: `{${PARENT_GUID}}`, ...locator } });
}

const BITMAPS: Rows<VhdxLayout> = (
  [
    ['no bitmap', () => 0, 0],
    ['a bitmap past the end', (random: Random) => between(random, 1000, 2 ** 43), 6],
    ['a bitmap in the header', () => 0, 6],
    ['a bitmap of a reserved state', () => 7, 3],
  ] as const
).map(([name, offsetMib, state]) => [
  name,
  'io-error',
  (file, { layout }, random) => {
    const value = (BigInt(offsetMib(random)) << 20n) | BigInt(state);
    file.writeBigUInt64LE(value, BAT_OFFSET + layout.blocksPerChunk * 8);
  },
]);

/** A child of a disk that holds nothing: what shows is its own. */
function childOfNothing(scene: Scene): Made<VhdxLayout> {
  const made = child(scene, { relative_path: 'base.vhdx' });
  const { size } = made.model;
  const states = Array.from({ length: size / MiB }, () => 'zero' as const);
  const model = { size, unitSize: MiB, states, content: Buffer.alloc(size) };
  const path = join(scene.folder, 'base.vhdx');
  writeVhdx(path, { model, blockSize: MiB, dataWriteGuid: PARENT_GUID });
  return made;
}

const PARENTS = hostileKinds('parent', (scene, nameOf) => {
  const { path: secret } = makeVhdx(
    { ...scene, folder: scene.outside },
    { name: 'secret.vhdx', dataWriteGuid: PARENT_GUID },
  );
  const { random } = scene;
  const named = nameOf(secret);
  const written = random.pick([named, named.replaceAll('/', '\\')]);
  const key = random.pick(['relative_path', 'absolute_win32_path', 'volume_path']);
  return specimenOf(child(scene, { [key]: written }));
});

const WRONG_PARENTS: readonly Kind[] = [
  {
    name: 'parent: another disk',
    expect: 'refuse',
    make(scene) {
      makeVhdx(scene, { name: 'base.vhdx', dataWriteGuid: UNKNOWN });
      return specimenOf(child(scene, { relative_path: 'base.vhdx' }));
    },
  },
  {
    name: 'parent: itself',
    expect: 'refuse',
    make(scene) {
      const parent = { parent_linkage: `{${PARENT_GUID}}`, relative_path: '.\\disk.vhdx' };
      return specimenOf(makeVhdx(scene, { parent, dataWriteGuid: PARENT_GUID }));
    },
  },
  {
    name: 'parent: none named',
    expect: 'refuse',
    make(scene) {
      return specimenOf(child(scene, {}));
    },
  },
];

export const VHDX_CHILDREN: readonly Kind[] = [
  ...damaged(childOfNothing, BITMAPS),
  ...PARENTS,
  ...WRONG_PARENTS,
];
