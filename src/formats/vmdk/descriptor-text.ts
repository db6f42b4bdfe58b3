/** Writes the text part of a VMDK. */
import { randomBytes, randomInt, randomUUID } from 'node:crypto';
import { DiskError } from '../../common/errors.js';
import { GiB, SECTOR_SIZE } from '../../common/units.js';
import { NIL_UUID } from '../../common/uuid.js';
import { hasProtocol } from '../sibling-path.js';
import { type ExtentLine, MAX_DESCRIPTOR_SIZE, NO_PARENT } from './descriptor.js';

/** What a descriptor says of the image below. */
export interface ParentEntry {
  readonly cid: string;
  /** What the child calls it. */
  readonly name: string;
  /** `ddb.uuid.image` and `ddb.uuid.modification` of the parent, where it has them. */
  readonly uuid?: string | undefined;
  readonly modificationUuid?: string | undefined;
}

export interface DescriptorContent {
  readonly createType: string;
  readonly virtualSize: number;
  readonly extents: readonly ExtentLine[];
  readonly parent?: ParentEntry;
  /** By which VirtualBox knows the image; default: a new one. */
  readonly uuid?: string;
}

/** What every VMware product and VirtualBox since 2006 reads. */
const HARDWARE_VERSION = 4;
/** Bytes that VMware's UUIDs begin with. */
const VMWARE_UUID_PREFIX = '6000C29';

/**
 * The descriptor of a new image, with a new content id and new UUIDs.
 * @param path for messages.
 * @throws DiskError `not-supported` for names that a descriptor cannot hold, and for one that grows
 * too long.
 */
export function descriptorText(path: string, content: DescriptorContent): Buffer {
  const { createType, extents, parent } = content;
  const lines = [
    '# Disk DescriptorFile',
    'version=1',
    'encoding="UTF-8"',
    `CID=${newCid()}`,
    `parentCID=${parent?.cid ?? NO_PARENT}`,
    'isNativeSnapshot="no"',
    `createType="${createType}"`,
    ...(parent === undefined ? [] : [`parentFileNameHint="${quotable(path, parent.name)}"`]),
    '',
    '# Extent description',
    ...extents.map((extent) => extentText(path, extent)),
    '',
    '# The Disk Data Base',
    '#DDB',
    '',
    ...databaseLines(content),
    '',
  ];
  const text = Buffer.from(lines.join('\n'), 'utf8');
  if (text.length <= MAX_DESCRIPTOR_SIZE) return text;
  throw new DiskError(
    'not-supported',
    `${path}: a VMDK descriptor of ${text.length} bytes is above the limit of 1 MiB`,
    { hint: 'choose a shorter file name' },
  );
}

function extentText(path: string, extent: ExtentLine): string {
  const { access, sectors, kind, file = '', offsetSectors } = extent;
  const start = kind === 'FLAT' ? ` ${offsetSectors}` : '';
  return `${access} ${sectors} ${kind} "${quotable(path, file)}"${start}`;
}

/** A name between quotes, which the format has no way to write. */
function quotable(path: string, name: string): string {
  if (isQuotable(name)) return name;
  throw new DiskError(
    'not-supported',
    `${path}: a VMDK descriptor cannot name the file ${JSON.stringify(name)}`,
    { hint: 'choose a file name without quotation marks, backslashes, colons, line ends' },
  );
}

/**
 * Whether a descriptor can hold this name so that readers take it for the same: backslashes are
 * separators to them, and what stands before a colon a protocol.
 */
export function isQuotable(name: string): boolean {
  return !/["\\\p{Cc}\p{Cs}]/u.test(name) && !hasProtocol(name);
}

/** Any number but those that mean "no parent" and, to VMware, "never written to". */
function newCid(): string {
  return randomInt(1, 0xffff_fffe).toString(16).padStart(8, '0');
}

function databaseLines({ virtualSize, parent, uuid }: DescriptorContent): string[] {
  const { cylinders, heads, sectors } = geometryOf(virtualSize);
  const values: Readonly<Record<string, string | number>> = {
    adapterType: 'lsilogic',
    encoding: 'UTF-8',
    'geometry.cylinders': cylinders,
    'geometry.heads': heads,
    'geometry.sectors': sectors,
    uuid: vmwareUuid(),
    // VirtualBox tells images by these.
    'uuid.image': uuid ?? randomUUID(),
    'uuid.modification': randomUUID(),
    'uuid.parent': parent?.uuid ?? NIL_UUID,
    'uuid.parentmodification': parent?.modificationUuid ?? NIL_UUID,
    virtualHWVersion: HARDWARE_VERSION,
  };
  return Object.entries(values).map(([key, value]) => `ddb.${key} = "${value}"`);
}

/** How LSI and BusLogic adapters translate a disk of this size. */
function geometryOf(virtualSize: number) {
  const [heads, sectors] =
    virtualSize <= GiB ? [64, 32] : virtualSize <= 2 * GiB ? [128, 32] : [255, 63];
  const cylinders = Math.max(1, Math.floor(virtualSize / SECTOR_SIZE / (heads * sectors)));
  return { cylinders, heads, sectors };
}

/** 16 bytes as VMware writes them: `60 00 C2 9a dc 4a 12 0f-2a cb 5c 02 7e cf 6d 0e`. */
function vmwareUuid(): string {
  const hex = VMWARE_UUID_PREFIX + randomBytes(13).toString('hex').slice(0, 25);
  const bytes = [...hex.matchAll(/../g)].map(([byte]) => byte);
  return `${bytes.slice(0, 8).join(' ')}-${bytes.slice(8).join(' ')}`;
}
