/** UUIDs as text, and the two byte orders in which disk images store them. */
import { createHash } from 'node:crypto';
import type { Field } from './struct.js';

/** 8-4-4-4-12 hexadecimal digits, lower case. */
export type Uuid = string;

export const NIL_UUID: Uuid = '00000000-0000-0000-0000-000000000000';

const PATTERN = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** Whether `text` is a UUID as this file writes them. */
export function isUuid(text: string): boolean {
  return PATTERN.test(text);
}

/** The UUID that belongs to a text: always the same one (RFC 9562, version 8). */
export function uuidOf(text: string): Uuid {
  const bytes = createHash('sha256').update(text).digest();
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x80;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  return uuidFromBytes(bytes);
}

/** RFC 9562 byte order, all fields big endian: VHD, qcow2. `at` is the offset of the 16 bytes. */
export function uuidFromBytes(source: Buffer, at = 0): Uuid {
  return dashed(source.toString('hex', at, at + 16));
}

export function uuidToBytes(uuid: Uuid): Buffer {
  return Buffer.from(uuid.replaceAll('-', ''), 'hex');
}

/**
 * Microsoft's GUID byte order, the first three fields little endian: VHDX, GPT, and VDI (an RTUUID
 * is one in memory).
 */
export function uuidFromGuid(source: Buffer, at = 0): Uuid {
  return uuidFromBytes(swapHead(source.subarray(at, at + 16)));
}

export function uuidToGuid(uuid: Uuid): Buffer {
  return swapHead(uuidToBytes(uuid));
}

/** Layout field in RFC byte order. */
export const uuidField: Field<Uuid> = {
  size: 16,
  read: uuidFromBytes,
  write: (target, at, value) => {
    uuidToBytes(value).copy(target, at);
  },
};

/** Layout field in GUID byte order. */
export const guidField: Field<Uuid> = {
  size: 16,
  read: uuidFromGuid,
  write: (target, at, value) => {
    uuidToGuid(value).copy(target, at);
  },
};

function dashed(hex: string): Uuid {
  const parts = [
    hex.slice(0, 8),
    hex.slice(8, 12),
    hex.slice(12, 16),
    hex.slice(16, 20),
    hex.slice(20),
  ];
  return parts.join('-');
}

/** Reverses the bytes of the first three fields (4, 2 and 2 bytes) in a copy. */
function swapHead(source: Buffer): Buffer {
  const swapped = Buffer.from(source);
  swapped.subarray(0, 4).reverse();
  swapped.subarray(4, 6).reverse();
  swapped.subarray(6, 8).reverse();
  return swapped;
}
