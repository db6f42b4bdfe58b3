/** Extents of ESXi with one thing wrong. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { KiB, SECTOR_SIZE } from '../../../src/common/units.js';
import { type DiskModel, stampedModel } from '../../support/disk-model.js';
import type { Random } from '../../support/random.js';
import { buildCowd, buildSeSparse } from '../../support/vmdk-writer.js';
import { between, type Expectation, type Kind } from './kind.js';
import { extents } from './vmdk-specimen.js';

/** Extents of ESXi: their header's fields, each 32 bits of little endian. */
function ofEsxi(
  kind: string,
  build: (model: DiskModel) => Buffer,
  table: readonly (readonly [string, Expectation, number, (random: Random) => number])[],
): Kind[] {
  return table.map(([name, expect, offset, value]) => ({
    name: `${kind}: ${name}`,
    expect,
    make({ folder, random }) {
      const size = 4 * KiB * between(random, 8, 200);
      const model = stampedModel({
        size,
        unitSize: 4 * KiB,
        pattern: 'dud',
        salt: random.below(1000),
      });
      const file = build(model);
      file.writeUInt32LE(value(random), offset);
      writeFileSync(join(folder, 'extent.vmdk'), file);
      const path = join(folder, 'disk.vmdk');
      writeFileSync(path, extents(`RW ${size / SECTOR_SIZE} ${kind} "extent.vmdk"`));
      return { path, content: model.content };
    },
  }));
}

const COWD = ofEsxi('VMFSSPARSE', buildCowd, [
  ['version', 'refuse', 4, (random) => between(random, 2, 2 ** 32 - 1)],
  ['a capacity that is too small', 'refuse', 12, (random) => between(random, 0, 63)],
  ['grains of no bytes', 'refuse', 16, () => 0],
  ['grains of three sectors', 'refuse', 16, (random) => random.pick([3, 5, 7, 100])],
  ['a directory past the end', 'refuse', 20, (random) => between(random, 2 ** 24, 2 ** 32 - 1)],
  ['a directory of no entries', 'refuse', 24, () => 0],
]);

const SE_SPARSE = ofEsxi('SESPARSE', buildSeSparse, [
  ['version', 'refuse', 8, (random) => between(random, 2, 2 ** 32 - 1)],
  ['no capacity', 'refuse', 16, () => 0],
  ['grains of 8 KiB', 'refuse', 24, (random) => random.pick([0, 1, 16, 128])],
  ['unknown flags', 'refuse', 40, (random) => between(random, 1, 2 ** 32 - 1)],
  [
    'a journal that was not replayed',
    'refuse',
    512 + 24,
    (random) => between(random, 1, 2 ** 32 - 1),
  ],
  ['no volatile header', 'refuse', 512, (random) => random.below(2 ** 31)],
  ['a directory past the end', 'refuse', 128, (random) => between(random, 2 ** 24, 2 ** 32 - 1)],
  ['a table of an unknown type', 'io-error', 3 * 512 + 4, (random) => between(random, 2, 15) << 24],
  [
    'a grain of an unknown type',
    'io-error',
    4 * 512 + 4,
    (random) => between(random, 4, 15) * 2 ** 28,
  ],
  [
    'a grain past the end',
    'io-error',
    4 * 512 + 4,
    (random) => 0x30000000 + between(random, 2 ** 12, 2 ** 16),
  ],
]);

export const VMDK_ESXI: readonly Kind[] = [...COWD, ...SE_SPARSE];
