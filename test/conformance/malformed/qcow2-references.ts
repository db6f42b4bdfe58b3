/** qcow2 images that name files which are not to be opened, or each other. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { hostileKinds } from './hostile-names.js';
import { type Kind, type Scene, specimenOf } from './kind.js';
import { MOST_BYTES, makeQcow2 } from './qcow2-specimen.js';

/** A file outside that would do as a parent. */
function secretOf({ outside, random }: Scene): string {
  return makeQcow2({ folder: outside, random }, { name: 'secret.qcow2' }).path;
}

const BACKING = hostileKinds('backing file', (scene, nameOf) => {
  const format = scene.random.pick(['qcow2', 'raw']);
  const backing = { name: nameOf(secretOf(scene)), format };
  return specimenOf(makeQcow2(scene, { clusterBits: 12, backing }));
});

const DATA_FILES = hostileKinds('data file', (scene, nameOf) => {
  const secret = join(scene.outside, 'secret.raw');
  writeFileSync(secret, Buffer.alloc(2 * MOST_BYTES, 's'));
  const dataFile = { name: nameOf(secret), path: join(scene.outside, 'real.raw') };
  return specimenOf(makeQcow2(scene, { clusterBits: 12, dataFile }));
});

const RINGS: readonly Kind[] = [1, 2, 3].map((length) => ({
  name: `a ring of ${length}`,
  expect: 'refuse',
  make(scene) {
    const made = Array.from({ length }, (_, index) =>
      makeQcow2(scene, {
        name: `${index}.qcow2`,
        backing: { name: `${(index + 1) % length}.qcow2`, format: 'qcow2' },
      }),
    );
    return specimenOf(made[0]!);
  },
}));

export const QCOW2_REFERENCES: readonly Kind[] = [...BACKING, ...DATA_FILES, ...RINGS];
