/** Reads a qcow2 header and judges every number in it before anything behind it is used. */
import { divCeil, formatSize, safeNumber } from '../../common/units.js';
import type { ReadableFile } from '../../storage/host-file.js';
import { damaged, unsupported } from '../image-error.js';
import { quoteName } from '../sibling-path.js';
import { type HeaderExtensions, readExtensions } from './header-extensions.js';
import {
  AUTOCLEAR_RAW_DATA_FILE,
  COMPRESSION_TYPE,
  COMPRESSION_TYPE_OFFSET,
  COMPRESSION_ZLIB,
  COMPRESSION_ZSTD,
  CRYPT_NAMES,
  ENTRY_SIZE,
  EXTENDED_ENTRY_SIZE,
  HEADER_V2,
  HEADER_V3,
  INCOMPATIBLE_COMPRESSION,
  INCOMPATIBLE_CORRUPT,
  INCOMPATIBLE_DATA_FILE,
  INCOMPATIBLE_DIRTY,
  INCOMPATIBLE_EXTENDED_L2,
  KNOWN_AUTOCLEAR,
  KNOWN_COMPATIBLE,
  KNOWN_INCOMPATIBLE,
  MAX_BACKING_NAME,
  MAX_CLUSTER_BITS,
  MAX_L1_BYTES,
  MAX_REFCOUNT_ORDER,
  MAX_REFCOUNT_TABLE_BYTES,
  MAX_SNAPSHOTS,
  MIN_CLUSTER_BITS,
  MIN_CLUSTER_BITS_EXTENDED_L2,
  QCOW2_MAGIC,
} from './qcow2-layout.js';

/** A table in the file: where, and how many entries. */
export interface TablePlace {
  readonly offset: number;
  readonly count: number;
}

export interface Qcow2Header {
  readonly version: 2 | 3;
  /** Bytes. */
  readonly virtualSize: number;
  readonly clusterBits: number;
  readonly clusterSize: number;
  readonly extendedL2: boolean;
  readonly externalData: boolean;
  readonly compression: 'deflate' | 'zstd';
  readonly l1: TablePlace;
  /** `count` in clusters. */
  readonly refcountTable: TablePlace;
  readonly snapshots: TablePlace;
  readonly backingName: string | undefined;
  readonly backingFormat: string | undefined;
  readonly dataFileName: string | undefined;
  /** Findings for `info`. */
  readonly notes: readonly string[];
}

type FieldsV2 = ReturnType<typeof HEADER_V2.decode>;
type FieldsV3 = ReturnType<typeof HEADER_V3.decode>;

/** What a version 2 header means in terms of version 3. */
const VERSION_2_DEFAULTS: FieldsV3 = {
  incompatibleFeatures: 0n,
  compatibleFeatures: 0n,
  autoclearFeatures: 0n,
  refcountOrder: 4,
  headerLength: HEADER_V2.size,
};

/** Whether a file that begins with these bytes says that it is qcow2 (and not the older qcow). */
export function hasQcow2Magic(header: Buffer): boolean {
  return (
    header.length >= 8 && header.readUInt32BE(0) === QCOW2_MAGIC && header.readUInt32BE(4) !== 1
  );
}

/**
 * @throws DiskError `damaged` for a header that contradicts itself or the file's length,
 *   `not-supported` for an encrypted image and for features that are not known, by name.
 */
export function readQcow2Header(file: ReadableFile): Qcow2Header {
  const { path } = file;
  const v2 = HEADER_V2.decode(readStart(file, HEADER_V2.size));
  if (v2.magic !== QCOW2_MAGIC) throw damaged(path, 'not a qcow2 image (no QFI magic)');
  if (v2.version !== 2 && v2.version !== 3) {
    throw unsupported(path, `qcow2 version ${v2.version} is not supported, only 2 and 3`);
  }
  const clusterSize = checkClusterBits(path, v2.clusterBits);
  const v3 = v2.version === 2 ? VERSION_2_DEFAULTS : readVersion3(file, clusterSize);
  const start = readStart(file, Math.min(clusterSize, file.size));
  const backingEnd = checkBackingName(file, v2, v3.headerLength, clusterSize);
  const extensions = readExtensions(path, start, v3.headerLength, backingEnd);
  checkFeatures(path, v2, v3, extensions);
  const extendedL2 = hasBit(v3.incompatibleFeatures, INCOMPATIBLE_EXTENDED_L2);
  const externalData = hasBit(v3.incompatibleFeatures, INCOMPATIBLE_DATA_FILE);
  const virtualSize = safeNumber(v2.size, `${path}: virtual size`);
  const nameStart = Number(v2.backingFileOffset);
  const hasBacking = nameStart !== 0 && v2.backingFileSize > 0;
  return {
    version: v2.version,
    virtualSize,
    clusterBits: v2.clusterBits,
    clusterSize,
    extendedL2,
    externalData,
    compression: compressionOf(path, start, v3),
    l1: checkL1(file, { clusterSize, extendedL2, virtualSize }, v2.l1TableOffset, v2.l1Size),
    refcountTable: checkRefcountTable(file, v2, clusterSize),
    snapshots: checkSnapshots(file, v2, clusterSize),
    backingName: hasBacking
      ? plainName(start.toString('utf8', nameStart, nameStart + v2.backingFileSize))
      : undefined,
    backingFormat: extensions.backingFormat,
    dataFileName: externalData ? plainName(extensions.dataFileName) : undefined,
    notes: notesOf(v3, extensions),
  };
}

/**
 * Checks an L1 table's place, the active one's or a snapshot's.
 * @returns the place of the part that the disk needs.
 */
export function checkL1(
  file: ReadableFile,
  disk: { clusterSize: number; extendedL2: boolean; virtualSize: number },
  offsetField: bigint,
  entries: number,
): TablePlace {
  const { path } = file;
  const { clusterSize, extendedL2, virtualSize } = disk;
  const entriesPerL2 = clusterSize / (extendedL2 ? EXTENDED_ENTRY_SIZE : ENTRY_SIZE);
  const needed = divCeil(divCeil(virtualSize, clusterSize), entriesPerL2);
  const offset = safeNumber(offsetField, `${path}: offset of the L1 table`);
  if (entries * ENTRY_SIZE > MAX_L1_BYTES) {
    throw damaged(
      path,
      `L1 table of ${entries} entries is too large (${formatSize(MAX_L1_BYTES)} at most)`,
    );
  }
  if (entries < needed) {
    throw damaged(
      path,
      `L1 table of ${entries} entries is too small: ${virtualSize} bytes need ${needed}`,
    );
  }
  if (offset % clusterSize !== 0) {
    throw damaged(path, `L1 table at ${offset} is not aligned to a cluster`);
  }
  if (offset + entries * ENTRY_SIZE > file.size) {
    throw damaged(path, `L1 table at ${offset} lies past the end of the file (${file.size} bytes)`);
  }
  if (entries > 0 && offset === 0) throw damaged(path, 'L1 table lies in the header');
  return { offset, count: needed };
}

function readStart(file: ReadableFile, length: number): Buffer {
  if (file.size < length)
    throw damaged(file.path, `only ${file.size} bytes long: the header is cut off`);
  const start = Buffer.alloc(length);
  file.readExact(start, 0, length, 0);
  return start;
}

function checkClusterBits(path: string, clusterBits: number): number {
  if (clusterBits < MIN_CLUSTER_BITS || clusterBits > MAX_CLUSTER_BITS) {
    throw damaged(
      path,
      `header says cluster_bits ${clusterBits}, ` +
        `allowed are ${MIN_CLUSTER_BITS} to ${MAX_CLUSTER_BITS}`,
    );
  }
  return 2 ** clusterBits;
}

function readVersion3(file: ReadableFile, clusterSize: number): FieldsV3 {
  const { path } = file;
  const least = HEADER_V2.size + HEADER_V3.size;
  const fields = HEADER_V3.decode(readStart(file, least), HEADER_V2.size);
  const { headerLength, refcountOrder } = fields;
  if (headerLength < least || headerLength > clusterSize || headerLength % 8 !== 0) {
    throw damaged(
      path,
      `header says that it is ${headerLength} bytes long, ` +
        `allowed are multiples of 8 from ${least} to ${clusterSize}`,
    );
  }
  if (refcountOrder > MAX_REFCOUNT_ORDER) {
    throw damaged(path, `header says refcount_order ${refcountOrder}, at most 6 is allowed`);
  }
  readStart(file, headerLength);
  return fields;
}

/** @returns where the area of the header extensions ends. */
function checkBackingName(
  file: ReadableFile,
  v2: FieldsV2,
  headerLength: number,
  clusterSize: number,
): number {
  const { path } = file;
  const areaEnd = Math.min(clusterSize, file.size);
  if (v2.backingFileOffset === 0n) return areaEnd;
  const offset = safeNumber(v2.backingFileOffset, `${path}: offset of the backing file name`);
  const length = v2.backingFileSize;
  if (length > MAX_BACKING_NAME) {
    throw damaged(
      path,
      `backing file name of ${length} bytes, at most ${MAX_BACKING_NAME} are allowed`,
    );
  }
  if (offset < headerLength || offset + length > areaEnd) {
    throw damaged(
      path,
      `backing file name at ${offset} (${length} bytes) lies outside the first cluster`,
    );
  }
  return offset;
}

function checkFeatures(
  path: string,
  v2: FieldsV2,
  v3: FieldsV3,
  extensions: HeaderExtensions,
): void {
  if (v2.cryptMethod !== 0) {
    const name = CRYPT_NAMES[v2.cryptMethod] ?? `method ${v2.cryptMethod}`;
    throw unsupported(
      path,
      `the image is encrypted (${name}), which is not supported`,
      'decrypt it first: qemu-img convert with the key, to an image without encryption',
    );
  }
  const unknown = v3.incompatibleFeatures & ~KNOWN_INCOMPATIBLE;
  if (unknown !== 0n) {
    const names = bitsOf(unknown).map((bit) => {
      const name = extensions.incompatibleNames.get(bit);
      return name === undefined ? `bit ${bit}` : `bit ${bit} (${quoteName(name)})`;
    });
    throw unsupported(path, `uses unknown incompatible features: ${names.join(', ')}`);
  }
  const extendedL2 = hasBit(v3.incompatibleFeatures, INCOMPATIBLE_EXTENDED_L2);
  if (extendedL2 && v2.clusterBits < MIN_CLUSTER_BITS_EXTENDED_L2) {
    throw damaged(
      path,
      `extended L2 entries need cluster_bits of ${MIN_CLUSTER_BITS_EXTENDED_L2}, ` +
        `header says ${v2.clusterBits}`,
    );
  }
  const externalData = hasBit(v3.incompatibleFeatures, INCOMPATIBLE_DATA_FILE);
  if (externalData && extensions.dataFileName === undefined) {
    throw unsupported(path, 'its data is in another file, which the image does not name');
  }
  if (externalData && v2.snapshotCount > 0) {
    throw damaged(
      path,
      'has internal snapshots and an external data file, which exclude each other',
    );
  }
}

function compressionOf(path: string, start: Buffer, v3: FieldsV3): 'deflate' | 'zstd' {
  const present = v3.headerLength > COMPRESSION_TYPE_OFFSET;
  const type = present ? COMPRESSION_TYPE.read(start, COMPRESSION_TYPE_OFFSET) : COMPRESSION_ZLIB;
  const flagged = hasBit(v3.incompatibleFeatures, INCOMPATIBLE_COMPRESSION);
  if (flagged !== (type !== COMPRESSION_ZLIB)) {
    throw damaged(path, `compression type ${type} contradicts the compression feature bit`);
  }
  if (type === COMPRESSION_ZLIB) return 'deflate';
  if (type === COMPRESSION_ZSTD) return 'zstd';
  throw unsupported(path, `compression type ${type} is not supported, only 0 (zlib) and 1 (zstd)`);
}

function checkRefcountTable(file: ReadableFile, v2: FieldsV2, clusterSize: number): TablePlace {
  const { path } = file;
  const offset = safeNumber(v2.refcountTableOffset, `${path}: offset of the refcount table`);
  const count = v2.refcountTableClusters;
  const length = count * clusterSize;
  if (length > MAX_REFCOUNT_TABLE_BYTES || count === 0) {
    throw damaged(path, `refcount table of ${count} clusters: 1 cluster to 8 MiB are allowed`);
  }
  if (offset === 0 || offset % clusterSize !== 0 || offset + length > file.size) {
    throw damaged(
      path,
      `refcount table at ${offset} (${length} bytes) does not lie in the file's clusters`,
    );
  }
  return { offset, count };
}

function checkSnapshots(file: ReadableFile, v2: FieldsV2, clusterSize: number): TablePlace {
  const { path } = file;
  const count = v2.snapshotCount;
  if (count === 0) return { offset: 0, count };
  const offset = safeNumber(v2.snapshotsOffset, `${path}: offset of the snapshot table`);
  if (count > MAX_SNAPSHOTS) {
    throw damaged(
      path,
      `header says that there are ${count} snapshots, at most ${MAX_SNAPSHOTS} are allowed`,
    );
  }
  if (offset === 0 || offset % clusterSize !== 0 || offset >= file.size) {
    throw damaged(path, `snapshot table at ${offset} does not lie in the file's clusters`);
  }
  return { offset, count };
}

function notesOf(v3: FieldsV3, extensions: HeaderExtensions): string[] {
  const notes: string[] = [];
  if (hasBit(v3.incompatibleFeatures, INCOMPATIBLE_DIRTY)) {
    notes.push(
      'was not closed cleanly: reference counts may be wrong, which does not matter for reading',
    );
  }
  if (hasBit(v3.incompatibleFeatures, INCOMPATIBLE_CORRUPT)) {
    notes.push(
      'is marked corrupt: a writer found damaged tables; parts may be unreadable or wrong',
    );
  }
  if (hasBit(v3.autoclearFeatures, AUTOCLEAR_RAW_DATA_FILE)) {
    notes.push('the data file is a raw image of the disk by itself');
  }
  for (const bit of bitsOf(v3.compatibleFeatures & ~KNOWN_COMPATIBLE)) {
    notes.push(`unknown compatible feature: bit ${bit}`);
  }
  for (const bit of bitsOf(v3.autoclearFeatures & ~KNOWN_AUTOCLEAR)) {
    notes.push(`unknown autoclear feature: bit ${bit}`);
  }
  for (const type of extensions.unknownTypes) {
    notes.push(`unknown header extension: 0x${type.toString(16).padStart(8, '0')}`);
  }
  return notes;
}

/**
 * `file:` is the protocol of plain files: QEMU takes what follows it as it is, without decoding. A
 * path that begins with several slashes is no Windows share here.
 */
function plainName<Name extends string | undefined>(name: Name): Name {
  return name?.replace(/^file:/, '').replace(/^\/\/+/, '/') as Name;
}

function hasBit(field: bigint, bit: number): boolean {
  return ((field >> BigInt(bit)) & 1n) === 1n;
}

function bitsOf(field: bigint): number[] {
  return Array.from({ length: 64 }, (_, bit) => bit).filter((bit) => hasBit(field, bit));
}
