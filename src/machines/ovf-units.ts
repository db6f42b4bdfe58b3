/** Units as OVF descriptors write them: `byte * 2^20` (DSP0004), and the words that came before. */
import { GiB, KiB, MiB, TiB } from '../common/units.js';
import { unsupported } from '../formats/image-error.js';
import { quoteName } from '../formats/sibling-path.js';

const PREFIXES: readonly [letter: string, decimal: string, binary: string, bytes: number][] = [
  ['k', 'kilo', 'kibi', KiB],
  ['m', 'mega', 'mebi', MiB],
  ['g', 'giga', 'gibi', GiB],
  ['t', 'tera', 'tebi', TiB],
];
/** VMware and VirtualBox mean powers of 1024 by all of these. */
const WORDS: ReadonlyMap<string, number> = new Map([
  ...['b', 'byte', 'bytes'].map((word) => [word, 1] as const),
  ...PREFIXES.flatMap(([letter, decimal, binary, bytes]) => [
    ...[`${letter}b`, `${letter}ib`].map((word) => [word, bytes] as const),
    ...[decimal, binary].flatMap((word) => [
      [`${word}byte`, bytes] as const,
      [`${word}bytes`, bytes] as const,
    ]),
  ]),
]);

/**
 * Bytes of one unit.
 * @param missing what is meant where none is given.
 * @throws DiskError `not-supported`.
 */
export function allocationUnit(path: string, text: string | undefined, missing: number): number {
  if (text === undefined || text === '') return missing;
  const [word = '', ...factors] = text.toLowerCase().split('*');
  let unit = WORDS.get(word.trim()) ?? Number.NaN;
  for (const factor of factors) {
    // Numbers and exponents of DSP0004 may have a plus in front.
    const match = /^\s*\+?(\d{1,15})(?:\s*\^\s*\+?(\d{1,2}))?\s*$/.exec(factor);
    unit *= match === null ? Number.NaN : Number(match[1]) ** Number(match[2] ?? 1);
  }
  if (Number.isSafeInteger(unit) && unit >= 1) return unit;
  throw unsupported(path, `the unit ${quoteName(text)} is not known`);
}
