/**
 * JSON files that people may read and edit, and that say so when a bit of them has changed: the
 * last key is a checksum over the text before it. A file without that key is taken as it is: taking
 * the line out is how an edit is meant.
 */
import { crc32cOf } from './checksum.js';

const KEY = 'checksum';
const TAIL = /,\n {2}"checksum": "([0-9a-f]{8})"\n\}\n$/;

/** @param value an object with at least one key. */
export function formatSealed(value: object): string {
  const body = JSON.stringify(value, null, 2).slice(0, -'\n}'.length);
  return `${body},\n  "${KEY}": "${checksumOf(body)}"\n}\n`;
}

export interface SealedJson {
  /** Without the checksum. */
  readonly json: unknown;
  /** Whether the text is what was written, as far as it can tell. */
  readonly intact: boolean;
}

/** @throws SyntaxError when it is no JSON. */
export function parseSealed(text: string): SealedJson {
  const json: unknown = JSON.parse(text);
  if (typeof json !== 'object' || json === null || !Object.hasOwn(json, KEY)) {
    return { json, intact: true };
  }
  const tail = TAIL.exec(text);
  const intact = tail !== null && checksumOf(text.slice(0, tail.index)) === tail[1];
  const { [KEY]: _, ...rest } = json as Record<string, unknown>;
  return { json: rest, intact };
}

function checksumOf(body: string): string {
  return crc32cOf(Buffer.from(body)).toString(16).padStart(8, '0');
}
