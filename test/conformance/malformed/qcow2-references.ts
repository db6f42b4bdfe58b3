/** qcow2 images that name files which are not to be opened, or each other. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { HOSTILE_NAMES } from './hostile-names.js';
import type { Kind, Scene } from './kind.js';
import { MOST_BYTES, makeQcow2 } from './qcow2-specimen.js';

/** A file outside that would do as a parent. */
function secretOf({ outside, random }: Scene): string {
  return makeQcow2({ folder: outside, random }, { name: 'secret.qcow2' }).path;
}

const BACKING: readonly Kind[] = HOSTILE_NAMES.map(({ title, name }) => ({
  name: `backing file: ${title}`,
  expect: 'refuse',
  make(scene) {
    const format = scene.random.pick(['qcow2', 'raw']);
    const { path, model } = makeQcow2(scene, {
      clusterBits: 12,
      backing: { name: name(scene, secretOf(scene)), format },
    });
    return { path, content: model.content };
  },
}));

const DATA_FILES: readonly Kind[] = HOSTILE_NAMES.map(({ title, name }) => ({
  name: `data file: ${title}`,
  expect: 'refuse',
  make(scene) {
    const secret = join(scene.outside, 'secret.raw');
    writeFileSync(secret, Buffer.alloc(2 * MOST_BYTES, 's'));
    const dataFile = { name: name(scene, secret), path: join(scene.outside, 'real.raw') };
    const { path, model } = makeQcow2(scene, { clusterBits: 12, dataFile });
    return { path, content: model.content };
  },
}));

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
    return { path: made[0]!.path, content: made[0]!.model.content };
  },
}));

export const QCOW2_REFERENCES: readonly Kind[] = [...BACKING, ...DATA_FILES, ...RINGS];
