/** The configuration file: a few settings that need not be said on every command line. */
import { readFileSync } from 'node:fs';
import { DiskError, errnoName } from '../common/errors.js';
import type { ChosenPlaces } from '../common/places.js';
import { parseSize } from '../common/units.js';

/** How disks are shown; `auto` takes the kernel channel where it runs. */
export const TRANSPORTS = ['auto', 'kernel', 'fuse-native'] as const;

/** What becomes of a write that a full store has no room for: it fails, or it waits. */
export const ON_FULL = ['report', 'pause'] as const;

/** What the file may say: one JSON object with any of these keys. */
export interface Configuration extends ChosenPlaces {
  readonly transport?: (typeof TRANSPORTS)[number];
  /** I/O threads of the daemon. */
  readonly threads?: number;
  /** Whether other users may see the mount. */
  readonly allowOther?: boolean;
  /** Whether reads are checked against checksums. */
  readonly verifyReads?: boolean;
  /** Space that guests never take: bytes, or a text such as `1G`. */
  readonly reserve?: number | string;
  /** What becomes of a write that there is no room for. */
  readonly onFull?: (typeof ON_FULL)[number];
}

const isText = (value: unknown): boolean => typeof value === 'string' && value !== '';

const isSize = (value: unknown): boolean => {
  const bytes = typeof value === 'string' ? parseSize(value) : value;
  return typeof bytes === 'number' && Number.isSafeInteger(bytes) && bytes >= 0;
};

const KEYS: Readonly<Record<keyof Configuration, { ok(value: unknown): boolean; want: string }>> = {
  store: { ok: isText, want: 'a path' },
  socket: { ok: isText, want: 'a path' },
  mountpoint: { ok: isText, want: 'a path' },
  transport: {
    ok: (value) => TRANSPORTS.some((name) => name === value),
    want: `one of ${TRANSPORTS.join(', ')}`,
  },
  threads: {
    ok: (value) => typeof value === 'number' && Number.isInteger(value) && value >= 1,
    want: 'a whole number from 1',
  },
  allowOther: { ok: (value) => typeof value === 'boolean', want: 'true or false' },
  verifyReads: { ok: (value) => typeof value === 'boolean', want: 'true or false' },
  reserve: { ok: isSize, want: 'a size such as "1G"' },
  onFull: {
    ok: (value) => ON_FULL.some((name) => name === value),
    want: `one of ${ON_FULL.join(', ')}`,
  },
};

/**
 * Reads the file; one that does not exist says nothing.
 * @throws DiskError `usage` naming the file and the key that is unknown or of the wrong kind.
 */
export function readConfiguration(path: string): Configuration {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    const errno = errnoName(error);
    if (errno === 'ENOENT' || errno === 'ENOTDIR') return {};
    throw new DiskError('not-permitted', `cannot read the configuration file ${path} (${errno})`, {
      cause: error,
    });
  }
  return checkConfiguration(path, text);
}

function checkConfiguration(path: string, text: string): Configuration {
  const refuse = (what: string): DiskError =>
    new DiskError('usage', `configuration file ${path}: ${what}`, {
      hint: `keys are ${Object.keys(KEYS).join(', ')}`,
    });
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw refuse('is not a JSON document');
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw refuse('is not a JSON object');
  }
  for (const [key, setting] of Object.entries(value)) {
    if (!isKey(key)) throw refuse(`unknown key "${key}"`);
    if (!KEYS[key].ok(setting)) throw refuse(`"${key}" must be ${KEYS[key].want}`);
  }
  return value;
}

function isKey(key: string): key is keyof Configuration {
  return Object.hasOwn(KEYS, key);
}
