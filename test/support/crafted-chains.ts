/**
 * Random chains written byte by byte by the tests' own writers: shapes that we read but do not
 * write.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { KiB, MiB, SECTOR_SIZE } from '../../src/common/units.js';
import type { FormatName } from '../../src/formats/image-format.js';
import { LOCATOR_RELATIVE } from '../../src/formats/vhd/vhd-layout.js';
import { type DiskModel, mergedContent } from './disk-model.js';
import { writeQcow2 } from './qcow2-writer.js';
import type { Random } from './random.js';
import { type RandomModelOptions, randomModel, randomSize } from './random-disks.js';
import { buildVdi } from './vdi-writer.js';
import { writeVhd } from './vhd-writer.js';
import { writeVhdx } from './vhdx-writer.js';
import { buildSparse, descriptorText } from './vmdk-writer.js';

const MAX_DEPTH = 5;

/** One image of a chain that is to be written. */
interface Level {
  readonly path: string;
  readonly name: string;
  /** From 0, the bottom. */
  readonly number: number;
  /** Name of the file below. */
  readonly parent: string | undefined;
  /** A random model of the chain's size. */
  model(options: Pick<RandomModelOptions, 'unitSize' | 'zero'>): DiskModel;
}

export interface CraftedLevel {
  readonly path: string;
  /** What the disk shows from this level on down. */
  readonly content: Buffer;
}

/** Writes an image, and answers what it holds. */
type Craft = (level: Level, random: Random) => DiskModel;

/** An identity that follows from the level. */
function uuidOf(number: number, kind = 0): string {
  return `cccccccc-0000-4000-8000-0000000000${kind}${number}`;
}

const CRAFTS: Readonly<Partial<Record<FormatName, Craft>>> = {
  qcow2({ path, parent, model: make }, random) {
    const version = random.pick([2, 3, 3] as const);
    const extendedL2 = version === 3 && random.below(3) === 0;
    const clusterBits = extendedL2 ? 14 + random.below(3) : 9 + random.below(8);
    const unitSize = 2 ** clusterBits / (extendedL2 ? 32 : 1);
    const model = make({ unitSize, zero: version === 3 });
    // A cluster of 512 bytes cannot say the length of one that compression made longer.
    const packed = extendedL2 || clusterBits === 9 ? 0 : random.below(3);
    writeQcow2(path, {
      ...{ model, version, extendedL2, clusterBits },
      ...(packed > 0 ? { compressed: (cluster) => cluster % packed === 0 } : {}),
      compression: version === 3 ? random.pick(['deflate', 'zstd'] as const) : 'deflate',
      zeroAllocated: version === 3 && random.below(2) === 0,
      ...(parent === undefined ? {} : { backing: { name: parent, format: 'qcow2' } }),
    });
    return model;
  },
  vhd({ path, parent, number, model: make }, random) {
    const model = make({ unitSize: SECTOR_SIZE * (1 + random.below(20)), zero: false });
    const data = Buffer.from(`.\\${parent}`, 'utf16le');
    const locators = [{ code: LOCATOR_RELATIVE, data }];
    writeVhd(path, {
      ...{ model, uuid: uuidOf(number) },
      blockSize: random.pick([4 * KiB, 64 * KiB, 512 * KiB, 2 * MiB]),
      type: 'dynamic',
      ...(parent === undefined
        ? {}
        : {
            type: 'differencing' as const,
            parent: { uuid: uuidOf(number - 1), name: parent, locators },
          }),
    });
    return model;
  },
  vhdx({ path, parent, number, model: make }, random) {
    const blockSize = random.pick([MiB, 2 * MiB, 8 * MiB]);
    const sectors = random.pick([512, 4 * KiB, 64 * KiB, MiB]);
    const model = make({ unitSize: parent === undefined ? blockSize : sectors, zero: false });
    const linkage = {
      parent_linkage: `{${uuidOf(number - 1)}}`,
      relative_path: `.\\${parent}`,
    };
    writeVhdx(path, {
      ...{ model, blockSize, dataWriteGuid: uuidOf(number) },
      ...(parent === undefined ? {} : { parent: linkage }),
    });
    return model;
  },
  vdi({ path, parent, number, model: make }, random) {
    const model = make({ unitSize: random.pick([4 * KiB, 64 * KiB, MiB]) });
    const link = { type: 4, parent: uuidOf(number - 1), parentModification: uuidOf(number - 1, 1) };
    const own = { uuid: uuidOf(number), modification: uuidOf(number, 1) };
    const extra = random.pick([0, 0, 512]);
    writeFileSync(path, buildVdi(model, { ...own, extra, ...(parent === undefined ? {} : link) }));
    return model;
  },
  vmdk({ path, name, parent, number, model: make }, random) {
    const zeroedGrains = random.below(2) === 0;
    const model = make({
      unitSize: random.pick([4 * KiB, 16 * KiB, 64 * KiB]),
      zero: zeroedGrains,
    });
    const descriptor = descriptorText({
      createType: 'monolithicSparse',
      cid: `cafe000${number}`,
      extents: [`RW ${model.size / SECTOR_SIZE} SPARSE "${name}"`],
      ...(parent === undefined ? {} : { parentCid: `cafe000${number - 1}`, parentName: parent }),
    });
    const version = zeroedGrains ? 2 : 1;
    writeFileSync(path, buildSparse(model, { descriptor, zeroedGrains, version }));
    return model;
  },
};

/** Those whose chains can be crafted. */
export const CRAFTED_FORMATS = Object.keys(CRAFTS) as FormatName[];

/** Writes a chain into `folder`; the bottom one first. */
export function craftChain(random: Random, format: FormatName, folder: string): CraftedLevel[] {
  const size = randomSize(random);
  const craft = CRAFTS[format]!;
  const models: DiskModel[] = [];
  return Array.from({ length: 2 + random.below(MAX_DEPTH - 1) }, (_, number) => {
    const name = `level-${number}.${format}`;
    const path = join(folder, name);
    const parent = number === 0 ? undefined : `level-${number - 1}.${format}`;
    const model = (options: Pick<RandomModelOptions, 'unitSize' | 'zero'>) =>
      randomModel(random, { ...options, size, salt: number + 1 });
    models.unshift(craft({ path, name, number, parent, model }, random));
    return { path, content: mergedContent(models) };
  });
}
