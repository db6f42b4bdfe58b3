/** Values as machine files write them: numbers, addresses, sizes with units, names of files. */
import { damaged } from '../formats/image-error.js';
import { quoteName } from '../formats/sibling-path.js';

/** What a table has under a word from a file: `constructor` is in none, though objects have it. */
export function entryOf<T>(table: Readonly<Record<string, T>>, word: string): T | undefined {
  return Object.hasOwn(table, word) ? table[word] : undefined;
}

/**
 * @param what names the value in the error.
 * @throws DiskError `damaged` for what is no whole number from 0 to 2^53 - 1.
 */
export function wholeNumber(path: string, what: string, text: string): number {
  const value = /^\s*\d+\s*$/.test(text) ? Number(text) : Number.NaN;
  if (Number.isSafeInteger(value)) return value;
  throw damaged(path, `${what} is ${quoteName(text)}, which is no whole number`);
}

/** The same times `unit` bytes. */
export function byteCount(path: string, what: string, text: string, unit: number): number {
  const value = wholeNumber(path, what, text) * unit;
  if (Number.isSafeInteger(value)) return value;
  throw damaged(path, `${what} of ${quoteName(text)} times ${unit} bytes is beyond all limits`);
}

/** `080027ABCDEF`, `08-00-27-ab-cd-ef` as `08:00:27:ab:cd:ef`; undefined for what is no address. */
export function macAddress(text: string | undefined): string | undefined {
  const digits = (text ?? '').toLowerCase().replace(/[:-]/g, '');
  return /^[0-9a-f]{12}$/.test(digits) ? digits.replace(/(..)(?!$)/g, '$1:') : undefined;
}

/** A time; undefined for what is none, or not within the years 1970 to 9999. */
export function timeOf(milliseconds: number): Date | undefined {
  const isTime = milliseconds >= 0 && milliseconds < Date.UTC(10_000, 0);
  return isTime ? new Date(milliseconds) : undefined;
}

/**
 * The names to try for a file that a machine file names: as written, then by its bare name beside
 * the machine file, because machines are moved. A path with a drive is tried by its bare name only.
 */
export function namesToTry(written: string): string[] {
  const name = written.replaceAll('\\', '/');
  const bare = name.slice(name.lastIndexOf('/') + 1);
  const isWindows = /^[A-Za-z]:/.test(name) || name.startsWith('//');
  return [...new Set(isWindows ? [bare] : [name, bare])].filter((each) => each !== '');
}
