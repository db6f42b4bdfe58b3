/** What a malformed or hostile image is for a test: one thing wrong, and what must come of it. */
import { readFileSync, writeFileSync } from 'node:fs';
import type { Field } from '../../../src/common/struct.js';
import { type DiskModel, stampedModel } from '../../support/disk-model.js';
import type { Random } from '../../support/random.js';

/**
 * `refuse`: it does not open. `io-error`: it opens, what is damaged fails with EIO, all else is
 * right. `ok`: all of it is right. `careful`: any of them, but never a wrong byte.
 */
export type Expectation = 'refuse' | 'io-error' | 'ok' | 'careful';

export interface Scene {
  /** Empty, for the image and what it may open. */
  readonly folder: string;
  /** Another one, of which nothing may be opened. */
  readonly outside: string;
  readonly random: Random;
}

export interface Specimen {
  /** What to open. */
  readonly path: string;
  /** What the undamaged disk shows; not asked for where it must be refused. */
  readonly content: Buffer;
}

export interface Kind {
  readonly name: string;
  readonly expect: Expectation;
  make(scene: Scene): Specimen;
}

export function specimenOf({ path, model }: Made<unknown>): Specimen {
  return { path, content: model.content };
}

/** Changes the bytes of a file in place; a buffer that it returns takes the place of all. */
export type Damage<Layout> = (file: Buffer, made: Made<Layout>, random: Random) => unknown;

export interface Made<Layout> {
  readonly path: string;
  readonly model: DiskModel;
  readonly layout: Layout;
}

/** A table of kinds: a sound image, changed. */
export type Rows<Layout> = readonly (readonly [
  name: string,
  expect: Expectation,
  damage: Damage<Layout>,
])[];

/** Kinds that are a sound image, changed. */
export function damaged<Layout>(make: (scene: Scene) => Made<Layout>, table: Rows<Layout>): Kind[] {
  return table.map(([name, expect, damage]) => ({
    name,
    expect,
    make(scene) {
      const made = make(scene);
      const file = readFileSync(made.path);
      const changed = damage(file, made, scene.random);
      writeFileSync(made.path, Buffer.isBuffer(changed) ? changed : file);
      return specimenOf(made);
    },
  }));
}

/** Overwrites fields of a type with what is drawn for them. */
export function fieldOf<T, Layout>(type: Field<T>) {
  return (offset: number, value: (random: Random, made: Made<Layout>) => T): Damage<Layout> => {
    return (file, made, random) => {
      type.write(file, offset, value(random, made));
    };
  };
}

/** Changes one bit of a byte. */
export function flip(file: Buffer, where: number, random: Random): void {
  file[where] = file[where]! ^ (1 << random.below(8));
}

/** From `low` to `high`, both included. */
export function between(random: Random, low: number, high: number): number {
  return low + random.below(high - low + 1);
}

/** A number whose highest bit is one of those from `low` to `high`. */
export function bigWithBit(random: Random, low: number, high: number): bigint {
  const bit = BigInt(between(random, low, high));
  const noise = random.bytes(8).readBigUInt64LE();
  return (1n << bit) | (noise & ((1n << bit) - 1n));
}

/** A disk of which at least one unit is data. */
export function someModel(
  random: Random,
  options: { unitSize: number; units: number; letters: string },
): DiskModel {
  const { unitSize, units, letters } = options;
  const states = Array.from({ length: units }, () => random.pick([...letters]));
  states[random.below(units)] = 'd';
  const salt = 1 + random.below(1000);
  return stampedModel({ size: units * unitSize, unitSize, pattern: states.join(''), salt });
}

/** One of the units that are data. */
export function someDataUnit({ states }: DiskModel, random: Random): number {
  return random.pick([...states.keys()].filter((unit) => states[unit] === 'data'));
}
