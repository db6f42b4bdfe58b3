/** Writes what a new VHDX has besides blocks: identifier, headers, region tables and metadata. */
import { randomUUID } from 'node:crypto';
import { crc32cWithoutField } from '../../common/checksum.js';
import { u32le, u64le } from '../../common/struct.js';
import { NIL_UUID, type Uuid, uuidToGuid } from '../../common/uuid.js';
import type { OutputFile } from '../../storage/output-files.js';
import {
  ALIGNMENT,
  CHECKSUM_OFFSET,
  FILE_IDENTIFIER,
  FILE_PARAMETERS,
  FILE_SIGNATURE,
  FLAG_HAS_PARENT,
  FLAG_IS_REQUIRED,
  FLAG_IS_VIRTUAL_DISK,
  FLAG_LEAVE_BLOCK_ALLOCATED,
  HEADER,
  HEADER_AREA_SIZE,
  HEADER_OFFSETS,
  HEADER_SIGNATURE,
  HEADER_SIZE,
  ITEM_FILE_PARAMETERS,
  ITEM_LOGICAL_SECTOR_SIZE,
  ITEM_PARENT_LOCATOR,
  ITEM_PHYSICAL_SECTOR_SIZE,
  ITEM_VIRTUAL_DISK_ID,
  ITEM_VIRTUAL_DISK_SIZE,
  LOG_VERSION,
  METADATA_ENTRY,
  METADATA_SIGNATURE,
  METADATA_TABLE,
  METADATA_TABLE_SIZE,
  REGION_BAT,
  REGION_ENTRY,
  REGION_METADATA,
  REGION_TABLE,
  REGION_TABLE_OFFSETS,
  REGION_TABLE_SIGNATURE,
  REGION_TABLE_SIZE,
  VERSION,
} from './vhdx-layout.js';

/** In a new file the log, of 1 MiB and empty, follows the header area; then metadata, then BAT. */
const LOG_OFFSET = HEADER_AREA_SIZE;
const LOG_LENGTH = ALIGNMENT;
const METADATA_OFFSET = LOG_OFFSET + LOG_LENGTH;
const METADATA_LENGTH = ALIGNMENT;
export const BAT_OFFSET = METADATA_OFFSET + METADATA_LENGTH;

const CREATOR = 'layerdisk';
const PHYSICAL_SECTOR_SIZE = 4096;

export interface VhdxShape {
  readonly virtualSize: number;
  readonly blockSize: number;
  readonly logicalSectorSize: number;
  readonly isFixed: boolean;
  /** Of the parent, so that the guest sees the same disk; without one a new id. */
  readonly virtualDiskId: Uuid;
  /** Bytes, a multiple of `ALIGNMENT`. */
  readonly batLength: number;
  /** The metadata item of a differencing disk. */
  readonly parentLocator: Buffer | undefined;
}

export function writeStructures(file: OutputFile, shape: VhdxShape): void {
  const put = (bytes: Buffer, offset: number) => file.write(bytes, 0, bytes.length, offset);
  put(
    FILE_IDENTIFIER.encode({
      signature: Buffer.from(FILE_SIGNATURE),
      creator: Buffer.from(CREATOR, 'utf16le'),
    }),
    0,
  );
  const fileWriteGuid = randomUUID();
  const dataWriteGuid = randomUUID();
  for (const [index, offset] of HEADER_OFFSETS.entries()) {
    put(encodeHeader(index + 1, { fileWriteGuid, dataWriteGuid }), offset);
  }
  const regions = encodeRegionTable(shape.batLength);
  for (const offset of REGION_TABLE_OFFSETS) put(regions, offset);
  put(encodeMetadata(shape), METADATA_OFFSET);
}

function encodeHeader(
  sequenceNumber: number,
  guids: { readonly fileWriteGuid: Uuid; readonly dataWriteGuid: Uuid },
): Buffer {
  const header = HEADER.encode({
    ...guids,
    signature: HEADER_SIGNATURE,
    sequenceNumber: BigInt(sequenceNumber),
    logGuid: NIL_UUID,
    logVersion: LOG_VERSION,
    version: VERSION,
    logLength: LOG_LENGTH,
    logOffset: BigInt(LOG_OFFSET),
  });
  return sealed([header], HEADER_SIZE);
}

function encodeRegionTable(batLength: number): Buffer {
  const entries = [
    { guid: REGION_BAT, fileOffset: BigInt(BAT_OFFSET), length: batLength, required: 1 },
    {
      guid: REGION_METADATA,
      fileOffset: BigInt(METADATA_OFFSET),
      length: METADATA_LENGTH,
      required: 1,
    },
  ];
  const header = REGION_TABLE.encode({
    signature: REGION_TABLE_SIGNATURE,
    entryCount: entries.length,
  });
  return sealed([header, ...entries.map(REGION_ENTRY.encode)], REGION_TABLE_SIZE);
}

/** The parts, padded to `size`, with their checksum entered. */
function sealed(parts: readonly Buffer[], size: number): Buffer {
  const bytes = Buffer.concat(parts, size);
  bytes.writeUInt32LE(crc32cWithoutField(bytes, CHECKSUM_OFFSET), CHECKSUM_OFFSET);
  return bytes;
}

function encodeMetadata(shape: VhdxShape): Buffer {
  const { virtualSize, blockSize, logicalSectorSize, parentLocator } = shape;
  const fixed = shape.isFixed ? FLAG_LEAVE_BLOCK_ALLOCATED : 0;
  const flags = parentLocator === undefined ? fixed : FLAG_HAS_PARENT;
  const ofDisk = FLAG_IS_VIRTUAL_DISK | FLAG_IS_REQUIRED;
  const items: [Uuid, number, Buffer][] = [
    [ITEM_FILE_PARAMETERS, FLAG_IS_REQUIRED, FILE_PARAMETERS.encode({ blockSize, flags })],
    [ITEM_VIRTUAL_DISK_SIZE, ofDisk, number(u64le, BigInt(virtualSize))],
    [ITEM_LOGICAL_SECTOR_SIZE, ofDisk, number(u32le, logicalSectorSize)],
    [ITEM_PHYSICAL_SECTOR_SIZE, ofDisk, number(u32le, PHYSICAL_SECTOR_SIZE)],
    [ITEM_VIRTUAL_DISK_ID, ofDisk, uuidToGuid(shape.virtualDiskId)],
  ];
  if (parentLocator !== undefined)
    items.push([ITEM_PARENT_LOCATOR, FLAG_IS_REQUIRED, parentLocator]);
  const table = [
    METADATA_TABLE.encode({
      signature: Buffer.from(METADATA_SIGNATURE),
      entryCount: items.length,
    }),
  ];
  let offset = METADATA_TABLE_SIZE;
  for (const [itemId, itemFlags, { length }] of items) {
    table.push(METADATA_ENTRY.encode({ itemId, offset, length, flags: itemFlags }));
    offset += length;
  }
  return Buffer.concat([
    Buffer.concat(table, METADATA_TABLE_SIZE),
    ...items.map(([, , bytes]) => bytes),
  ]);
}

function number<T>(
  field: { readonly size: number; write(target: Buffer, at: number, value: T): void },
  value: T,
): Buffer {
  const bytes = Buffer.alloc(field.size);
  field.write(bytes, 0, value);
  return bytes;
}
