/** The text part of a VMDK: what the disk consists of and which content it stands on. */
import { DiskError } from '../../common/errors.js';
import { textIn } from '../../common/text-encoding.js';
import { MiB } from '../../common/units.js';
import { currentBudget, OBJECT_BYTES } from '../memory-budget.js';

/** One line of the extent description. */
export interface ExtentLine {
  readonly access: 'RW' | 'RDONLY' | 'NOACCESS';
  readonly sectors: number;
  /** `SPARSE`, `FLAT`, `ZERO`, `VMFS`, `VMFSSPARSE`, `SESPARSE`, ... in capitals. */
  readonly kind: string;
  /** As written; undefined for `ZERO`. */
  readonly file: string | undefined;
  /** First sector of the extent in a flat file. */
  readonly offsetSectors: number;
}

export interface VmdkDescriptor {
  readonly createType: string;
  /** Eight hexadecimal digits, lower case. */
  readonly cid: string;
  /** `NO_PARENT` at the root. */
  readonly parentCid: string;
  readonly parentName: string | undefined;
  readonly extents: readonly ExtentLine[];
  /** `ddb.toolsVersion` and the like, names in lower case. */
  readonly values: ReadonlyMap<string, string>;
}

export const NO_PARENT = 'ffffffff';
/** Kinds of extents with tables; which tables is told by the file's magic. */
export const SPARSE_KINDS: ReadonlySet<string> = new Set(['SPARSE', 'VMFSSPARSE', 'SESPARSE']);
/** Largest descriptor that is read. Real ones have some hundred bytes. */
export const MAX_DESCRIPTOR_SIZE = MiB;
/** Most extents; 2 GiB each, as VMware splits. */
export const MAX_EXTENTS = 4096;
/** Sectors past which a line cannot be meant: 64 TiB. */
const MAX_SECTORS = 2 ** 37;

const EXTENT = /^(RW|RDONLY|NOACCESS)\s+(\d+)\s+([A-Z0-9]+)(?:\s+"([^"]*)"(?:\s+(\d+))?.*)?$/i;
const VALUE = /^([^\s="]+)\s*=\s*(?:"([^"]*)"|(.*))$/;

/** Blanks of one line only: with line ends among them, a million empty lines take minutes. */
const ENCODING = /^[ \t]*encoding[ \t]*=[ \t]*"?([\w-]+)"?[ \t]*$/im;

/** Begins other characters in seven-bit encodings. */
const ESCAPE = 0x1b;

/** What an extent costs in memory besides its tables. */
const EXTENT_BYTES = 2 * OBJECT_BYTES;

/** Whether a file that begins with `header` is a descriptor. */
export function isDescriptor(header: Buffer): boolean {
  const start = header.toString('latin1', 0, 512).replace(/^\u00ef\u00bb\u00bf/, '');
  return /^\s*#\s*disk\s*descriptor\s*file/i.test(start);
}

/**
 * Reads a descriptor, from a file of its own or embedded in an extent (where zeroes follow the
 * text).
 * @param path for messages.
 * @throws DiskError `damaged` for lines that are not understood, `not-supported` for too many
 * extents.
 */
export function parseDescriptor(bytes: Buffer, path: string): VmdkDescriptor {
  const end = bytes.indexOf(0);
  const raw = end < 0 ? bytes : bytes.subarray(0, end);
  const values = new Map<string, string>();
  const extents: ExtentLine[] = [];
  for (const [index, line] of decodeText(raw, path)
    .split(/\r\n|\n|\r/)
    .entries()) {
    const text = line.trim();
    if (text === '' || text.startsWith('#')) continue;
    const value = VALUE.exec(text);
    if (value !== null) values.set(value[1]!.toLowerCase(), value[2] ?? value[3]!.trim());
    else extents.push(parseExtent(text, `${path}: line ${index + 1} of the VMDK descriptor`));
  }
  if (extents.length > MAX_EXTENTS) {
    throw new DiskError('not-supported', `${path}: ${extents.length} extents are above the limit`, {
      hint: `${MAX_EXTENTS} are the limit; convert it to one file: vmware-vdiskmanager -t 0`,
    });
  }
  currentBudget().take(raw.length + extents.length * EXTENT_BYTES, path);
  const version = values.get('version');
  if (!/^[1-4]$/.test(version ?? '')) {
    const what = version === undefined ? 'has no version' : `has the unknown version ${version}`;
    throw new DiskError('not-supported', `${path}: the VMDK descriptor ${what}`);
  }
  return {
    createType: values.get('createtype') ?? 'unknown',
    cid: parseCid(values.get('cid'), 'CID', path),
    parentCid: parseCid(values.get('parentcid') ?? NO_PARENT, 'parentCID', path),
    parentName: values.get('parentfilenamehint'),
    extents,
    values,
  };
}

function parseExtent(text: string, where: string): ExtentLine {
  const match = EXTENT.exec(text);
  const sectors = Number(match?.[2]);
  const offsetSectors = Number(match?.[5] ?? 0);
  if (match === null || sectors > MAX_SECTORS || offsetSectors > MAX_SECTORS) {
    const shown = JSON.stringify(text.slice(0, 80));
    throw new DiskError('damaged', `${where} is not understood: ${shown}`);
  }
  return {
    access: match[1]!.toUpperCase() as ExtentLine['access'],
    sectors,
    kind: match[3]!.toUpperCase(),
    file: match[4],
    offsetSectors,
  };
}

/** CIDs are 32-bit numbers in hexadecimal; VMware writes them with or without leading zeroes. */
function parseCid(text: string | undefined, name: string, path: string): string {
  if (text === undefined || !/^(0x)?[0-9a-f]{1,8}$/i.test(text)) {
    const what = text === undefined ? 'missing' : `${JSON.stringify(text.slice(0, 20))}, no number`;
    throw new DiskError('damaged', `${path}: the VMDK descriptor's ${name} is ${what}`);
  }
  return Number.parseInt(text, 16).toString(16).padStart(8, '0');
}

/** File names are in the encoding that the descriptor states; UTF-8 where it states none. */
function decodeText(bytes: Buffer, path: string): string {
  const stated = ENCODING.exec(bytes.toString('latin1'))?.[1];
  try {
    return textIn(stated ?? 'utf-8', bytes);
  } catch (cause) {
    // Names of code pages that only VMware's hosts know do no harm where nothing needs them.
    if (bytes.every((byte) => byte < 0x80 && byte !== ESCAPE)) return bytes.toString('latin1');
    const shown = JSON.stringify(stated?.slice(0, 40));
    throw new DiskError('not-supported', `${path}: text encoding ${shown} is unknown`, { cause });
  }
}
