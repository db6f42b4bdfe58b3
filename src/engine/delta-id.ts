/** Names of deltas: 128 random bits as 32 lower-case hexadecimal digits. */
import { randomBytes } from 'node:crypto';

export type DeltaId = string;

const PATTERN = /^[0-9a-f]{32}$/;

export function newDeltaId(): DeltaId {
  return randomBytes(16).toString('hex');
}

export function isDeltaId(text: string): boolean {
  return PATTERN.test(text);
}
