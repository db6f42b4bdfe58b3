/** The on-disk structures of VHDX ([MS-VHDX] v20240423); sections are given with each. */
import { array, bytes, struct, u16le, u32le, u64le } from '../../common/struct.js';
import { KiB, MiB } from '../../common/units.js';
import { guidField, type Uuid } from '../../common/uuid.js';

/** 2.2.1: signature, then who made the file, in UTF-16. */
export const FILE_SIGNATURE = 'vhdxfile';
export const FILE_IDENTIFIER = struct('VHDX file type identifier', 520, {
  signature: bytes(8),
  creator: bytes(512),
});

/** The first MiB of the file belongs to identifier, headers and region tables. */
export const HEADER_AREA_SIZE = MiB;
export const HEADER_OFFSETS = [64 * KiB, 128 * KiB] as const;
export const REGION_TABLE_OFFSETS = [192 * KiB, 256 * KiB] as const;
/** Offset of the CRC-32C in headers, region tables and log entries. */
export const CHECKSUM_OFFSET = 4;

/** 2.2.2; the checksum is over 4 KiB. */
export const HEADER_SIZE = 4 * KiB;
export const HEADER_SIGNATURE = 0x64616568;
export const HEADER = struct('VHDX header', 80, {
  signature: u32le,
  checksum: u32le,
  sequenceNumber: u64le,
  fileWriteGuid: guidField,
  dataWriteGuid: guidField,
  logGuid: guidField,
  logVersion: u16le,
  version: u16le,
  logLength: u32le,
  logOffset: u64le,
});
export const VERSION = 1;
export const LOG_VERSION = 0;

/** 2.2.3; the checksum is over 64 KiB. */
export const REGION_TABLE_SIZE = 64 * KiB;
export const REGION_TABLE_SIGNATURE = 0x69676572;
export const REGION_TABLE = struct('VHDX region table header', 16, {
  signature: u32le,
  checksum: u32le,
  entryCount: u32le,
  reserved: u32le,
});
export const REGION_ENTRY = struct('VHDX region table entry', 32, {
  guid: guidField,
  fileOffset: u64le,
  length: u32le,
  required: u32le,
});
export const MAX_TABLE_ENTRIES = 2047;
export const REGION_BAT: Uuid = '2dc27766-f623-4200-9d64-115e9bfd4a08';
export const REGION_METADATA: Uuid = '8b7ca206-4790-4b9a-b8fe-575f050f886e';
/** Regions, the log and blocks lie at multiples of it. */
export const ALIGNMENT = MiB;

/** 2.3.1. */
export const LOG_SECTOR_SIZE = 4 * KiB;
export const LOG_ENTRY_SIGNATURE = 0x65676f6c;
export const LOG_ENTRY = struct('VHDX log entry header', 64, {
  signature: u32le,
  checksum: u32le,
  entryLength: u32le,
  tail: u32le,
  sequenceNumber: u64le,
  descriptorCount: u32le,
  reserved: u32le,
  logGuid: guidField,
  flushedFileOffset: u64le,
  lastFileOffset: u64le,
});
export const ZERO_DESCRIPTOR_SIGNATURE = 0x6f72657a;
export const DATA_DESCRIPTOR_SIGNATURE = 0x63736564;
/**
 * 2.3.1.2 and 2.3.1.3: `trailing` and `leading` are bytes of data, or reserved and the length of
 * zeroes.
 */
export const LOG_DESCRIPTOR = struct('VHDX log descriptor', 32, {
  signature: u32le,
  trailing: bytes(4),
  leading: bytes(8),
  fileOffset: u64le,
  sequenceNumber: u64le,
});
/** 2.3.1.4: the middle of a sector between the halves of the sequence number. */
export const DATA_SECTOR_SIGNATURE = 0x61746164;
export const DATA_SECTOR = struct('VHDX log data sector', LOG_SECTOR_SIZE, {
  signature: u32le,
  sequenceHigh: u32le,
  data: bytes(4084),
  sequenceLow: u32le,
});
/** Updates that a log may hold: a log of 1 MiB, the usual size, has room for 32,000. */
export const MAX_LOG_UPDATES = 262_144;

/** 2.5.1: three bits of state; the upper 44 bits are the offset in MiB. */
export const BAT_ENTRY_SIZE = 8;
export const STATE_MASK = 7;
export const PAYLOAD_NOT_PRESENT = 0;
export const PAYLOAD_ZERO = 2;
export const PAYLOAD_UNMAPPED = 3;
export const PAYLOAD_FULLY_PRESENT = 6;
export const PAYLOAD_PARTIALLY_PRESENT = 7;
export const BITMAP_NOT_PRESENT = 0;
export const BITMAP_PRESENT = 6;
/** 2.4: a sector bitmap block is 1 MiB, one bit a sector. */
export const BITMAP_BLOCK_SIZE = MiB;
export const SECTORS_PER_CHUNK = 8 * BITMAP_BLOCK_SIZE;

/** 2.6.1: the table is 64 KiB; items lie behind it in the region. */
export const METADATA_TABLE_SIZE = 64 * KiB;
export const METADATA_SIGNATURE = 'metadata';
export const METADATA_TABLE = struct('VHDX metadata table header', 32, {
  signature: bytes(8),
  reserved: u16le,
  entryCount: u16le,
  reserved2: bytes(20),
});
export const METADATA_ENTRY = struct('VHDX metadata table entry', 32, {
  itemId: guidField,
  offset: u32le,
  length: u32le,
  flags: u32le,
  reserved: u32le,
});
export const FLAG_IS_USER = 1;
export const FLAG_IS_VIRTUAL_DISK = 2;
export const FLAG_IS_REQUIRED = 4;
export const MAX_ITEM_LENGTH = MiB;

/** 2.6.2. */
export const ITEM_FILE_PARAMETERS: Uuid = 'caa16737-fa36-4d43-b3b6-33f0aa44e76b';
export const ITEM_VIRTUAL_DISK_SIZE: Uuid = '2fa54224-cd1b-4876-b211-5dbed83bf4b8';
export const ITEM_VIRTUAL_DISK_ID: Uuid = 'beca12ab-b2e6-4523-93ef-c309e000c746';
export const ITEM_LOGICAL_SECTOR_SIZE: Uuid = '8141bf1d-a96f-4709-ba47-f233a8faab5f';
export const ITEM_PHYSICAL_SECTOR_SIZE: Uuid = 'cda348c7-445d-4471-9cc9-e9885251c556';
export const ITEM_PARENT_LOCATOR: Uuid = 'a8d35f2d-b30b-454d-abf7-d3d84834ab0c';
export const FILE_PARAMETERS = struct('VHDX file parameters', 8, {
  blockSize: u32le,
  flags: u32le,
});
export const FLAG_LEAVE_BLOCK_ALLOCATED = 1;
export const FLAG_HAS_PARENT = 2;
export const MIN_BLOCK_SIZE = MiB;
export const MAX_BLOCK_SIZE = 256 * MiB;

/** 2.6.2.6. */
export const LOCATOR_TYPE_VHDX: Uuid = 'b04aefb7-d19e-4a81-b789-25b8e9445913';
export const PARENT_LOCATOR = struct('VHDX parent locator header', 20, {
  locatorType: guidField,
  reserved: u16le,
  keyValueCount: u16le,
});
export const PARENT_LOCATOR_ENTRY = struct('VHDX parent locator entry', 12, {
  keyOffset: u32le,
  valueOffset: u32le,
  /** Key, then value, in bytes. */
  lengths: array(u16le, 2),
});

/**
 * Bytes of a table that are read and kept together; bytes of BAT and of sector bitmaps kept at
 * most.
 */
export const SLICE_SIZE = 4 * KiB;
export const BAT_CACHE_BYTES = 8 * MiB;
export const BITMAP_CACHE_BYTES = 8 * MiB;
/** Tables up to this size are searched at opening for blocks that overlap. */
export const MAX_COMPARED_ENTRIES = MiB;
