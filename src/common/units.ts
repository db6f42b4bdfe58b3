/**
 * Sizes and the arithmetic on them. All lengths and offsets are bytes unless a name says otherwise.
 */
import { DiskError } from './errors.js';

export const KiB = 1024;
export const MiB = 1024 * KiB;
export const GiB = 1024 * MiB;
export const TiB = 1024 * GiB;

/** The unit of virtual sizes and of every format's tables. */
export const SECTOR_SIZE = 512;
/** The engine's unit. */
export const BLOCK_SIZE = 4 * KiB;

/** Limits on a disk's virtual size (design: "Limits that are stated, checked and tested"). */
export const MIN_DISK_SIZE = SECTOR_SIZE;
export const MAX_DISK_SIZE = 64 * TiB;

/** Largest multiple of `unit` that is not above `value`; works past 2^32. */
export function alignDown(value: number, unit: number): number {
  return value - (value % unit);
}

/** Smallest multiple of `unit` that is not below `value`; works past 2^32. */
export function alignUp(value: number, unit: number): number {
  return alignDown(value + unit - 1, unit);
}

/** `value / unit`, rounded up. */
export function divCeil(value: number, unit: number): number {
  return Math.ceil(value / unit);
}

/**
 * The one gate through which a 64-bit field becomes a number.
 * @throws DiskError `damaged` when it is past 2^53.
 */
export function safeNumber(value: bigint, what: string): number {
  if (value < 0n || value > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new DiskError('damaged', `${what} is ${value}, which is out of range`);
  }
  return Number(value);
}

const SUFFIXES: Readonly<Record<string, number>> = {
  '': 1,
  b: 1,
  s: SECTOR_SIZE,
  k: KiB,
  m: MiB,
  g: GiB,
  t: TiB,
  p: 1024 * TiB,
  e: 1024 * 1024 * TiB,
  kib: KiB,
  mib: MiB,
  gib: GiB,
  tib: TiB,
  pib: 1024 * TiB,
  eib: 1024 * 1024 * TiB,
  kb: 1000,
  mb: 1000 ** 2,
  gb: 1000 ** 3,
  tb: 1000 ** 4,
  pb: 1000 ** 5,
  eb: 1000 ** 6,
};

/**
 * Reads `10G`, `512`, `1.5TiB`, `20GB`: a bare letter and `..iB` are powers of 1024, `..B` powers
 * of 1000.
 * @returns bytes, undefined when the text is no size (the caller knows what it was for).
 */
export function parseSize(text: string): number | undefined {
  const match = /^\s*(-?\d+(?:\.\d+)?)\s*([a-z]*)\s*$/i.exec(text);
  const factor = SUFFIXES[(match?.[2] ?? '').toLowerCase()];
  if (match === null || factor === undefined) return undefined;
  const bytes = Number(match[1]) * factor;
  return Number.isFinite(bytes) ? bytes : undefined;
}

/** `1.5 GiB`; exact below 1 KiB. */
export function formatSize(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = bytes;
  let index = 0;
  while (value >= 1024 && index < units.length - 1) {
    value /= 1024;
    index += 1;
  }
  const digits = index === 0 || Number.isInteger(value) || value >= 100 ? 0 : 1;
  return `${value.toFixed(digits)} ${units[index]}`;
}

/**
 * Checks a disk's virtual size.
 * @throws DiskError `usage` naming the limit that it breaks.
 */
export function checkDiskSize(size: number, what: string): void {
  const ask = `give a multiple of ${SECTOR_SIZE} bytes from 512 to 64T, for example 10G`;
  if (!Number.isFinite(size) || size < MIN_DISK_SIZE) {
    throw new DiskError('usage', `${what}: size ${size} is below the minimum of 512 bytes`, {
      hint: ask,
    });
  }
  if (size > MAX_DISK_SIZE) {
    throw new DiskError('usage', `${what}: size ${size} is above the maximum of 64 TiB`, {
      hint: ask,
    });
  }
  if (size % SECTOR_SIZE !== 0) {
    throw new DiskError(
      'usage',
      `${what}: size ${size} is not a multiple of ${SECTOR_SIZE} bytes`,
      {
        hint: ask,
      },
    );
  }
}
