/** Units as OVF descriptors write them: `byte * 2^20` (DSP0004), and the words that came before. */
import { GiB, KiB, MiB, TiB } from '../common/units.js';
import { unsupported } from '../formats/image-error.js';
import { quoteName } from '../formats/sibling-path.js';
import { entryOf } from './values.js';

/** VMware and VirtualBox mean powers of 1024 by all of these. */
const WORDS: Readonly<Record<string, number>> = {
  byte: 1,
  bytes: 1,
  kb: KiB,
  kilobytes: KiB,
  mb: MiB,
  megabytes: MiB,
  gb: GiB,
  gigabytes: GiB,
  tb: TiB,
  terabytes: TiB,
};

/**
 * Bytes of one unit.
 * @param missing what is meant where none is given.
 * @throws DiskError `not-supported`.
 */
export function allocationUnit(path: string, text: string | undefined, missing: number): number {
  if (text === undefined || text === '') return missing;
  const [word = '', ...factors] = text.toLowerCase().split('*');
  let unit = entryOf(WORDS, word.trim()) ?? Number.NaN;
  for (const factor of factors) {
    const match = /^\s*(\d{1,6})(?:\s*\^\s*(\d{1,2}))?\s*$/.exec(factor);
    unit *= match === null ? Number.NaN : Number(match[1]) ** Number(match[2] ?? 1);
  }
  if (Number.isSafeInteger(unit) && unit >= 1) return unit;
  throw unsupported(path, `the unit ${quoteName(text)} is not known`);
}
