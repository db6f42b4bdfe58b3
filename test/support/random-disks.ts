/** Random disks, and chains of them, as an image may have to hold them. */
import { KiB, MiB, SECTOR_SIZE } from '../../src/common/units.js';
import { type DiskModel, stampedModel } from './disk-model.js';
import type { Random } from './random.js';

const MAX_SIZE = 24 * MiB;
const MAX_DEPTH = 5;
const UNITS = [512, 1024, 1536, 4 * KiB, 12 * KiB, 64 * KiB, 192 * KiB, MiB, 2 * MiB + 512];
/** Sizes at which tables of formats end. */
const BORDERS = [4 * KiB, 64 * KiB, MiB, 2 * MiB];
/** Kinds of disks: what their units are, each letter as likely as the other. */
const LETTERS = ['d', 'u', 'z', 'du', 'dz', 'uz', 'duz', 'uuuuuuud', 'zzzzzzzd', 'ddddddduz'];
const RUNS = [1, 1, 3, 30, 400];

/** The models of a chain, the bottom one first; of one disk where it is not to have children. */
export function randomChain(
  random: Random,
  { differencing, resizes = false }: { differencing: boolean; resizes?: boolean },
): DiskModel[] {
  const depth = differencing ? 1 + random.below(MAX_DEPTH) : 1;
  let size = randomSize(random);
  return Array.from({ length: depth }, (_, level) => {
    if (level > 0 && resizes && random.below(3) === 0) size += randomSize(random);
    return randomModel(random, { size, unitSize: random.pick(UNITS), salt: level + 1 });
  });
}

export interface RandomModelOptions {
  readonly size: number;
  readonly unitSize: number;
  /** Another one for each disk of a chain, so that none can pass for another. */
  readonly salt: number;
  /** False where the format has no units that are zero; default true. */
  readonly zero?: boolean;
}

export function randomModel(random: Random, options: RandomModelOptions): DiskModel {
  const { zero = true, size, unitSize, salt } = options;
  const kinds = zero ? LETTERS : LETTERS.filter((kind) => !kind.includes('z'));
  const letters = random.pick(kinds);
  const runs = Array.from({ length: 1 + random.below(40) }, () =>
    random.pick([...letters]).repeat(1 + random.below(random.pick(RUNS))),
  );
  const model = stampedModel({ size, unitSize, pattern: runs.join(''), salt });
  // Data that is zero: it may be left out, but what is below it must not show.
  for (let count = random.below(4); count > 0; count -= 1) {
    const from = random.below(size / SECTOR_SIZE) * SECTOR_SIZE;
    model.content.fill(0, from, Math.min(size, from + (1 + random.below(300)) * SECTOR_SIZE));
  }
  return model;
}

/** Whole sectors: small ones as likely as large ones, and often next to a border. */
export function randomSize(random: Random): number {
  const sectors = 1 + random.below(2 ** random.below(17));
  if (random.below(3) > 0) return Math.min(MAX_SIZE, sectors * SECTOR_SIZE);
  const border = random.pick(BORDERS);
  const near = Math.ceil((sectors * SECTOR_SIZE) / border) * border;
  return Math.min(MAX_SIZE, near + random.pick([-1, 0, 1]) * SECTOR_SIZE);
}
