/** The on-disk structures of VHD (Microsoft's specification of 2006). */
import { array, bytes, struct, u8, u16be, u32be, u64be } from '../../common/struct.js';
import { GiB, KiB, MiB } from '../../common/units.js';
import { uuidField } from '../../common/uuid.js';

/**
 * "Hard Disk Footer Format": the last sector of every file, copied to the first of all but fixed
 * disks.
 */
export const FOOTER_COOKIE = 'conectix';
export const FOOTER = struct('VHD footer', 512, {
  cookie: bytes(8),
  features: u32be,
  version: u32be,
  /** Of the dynamic disk header; all ones for a fixed disk. */
  dataOffset: u64be,
  timeStamp: u32be,
  creatorApplication: bytes(4),
  creatorVersion: u32be,
  creatorHostOs: bytes(4),
  originalSize: u64be,
  currentSize: u64be,
  cylinders: u16be,
  heads: u8,
  sectorsPerTrack: u8,
  diskType: u32be,
  checksum: u32be,
  uuid: uuidField,
  savedState: u8,
  reserved: bytes(427),
});
/** The one feature flag that is always set. */
export const FEATURES_RESERVED = 2;
/** In place of an offset: there is no such structure. */
export const NO_OFFSET = 0xffffffffffffffffn;
/** Virtual PC before 2004 left the last byte out. */
export const OLD_FOOTER_SIZE = 511;
export const DISK_TYPE_FIXED = 2;
export const DISK_TYPE_DYNAMIC = 3;
export const DISK_TYPE_DIFFERENCING = 4;
/** Version 1.0, of footer and dynamic disk header alike. */
export const VERSION = 0x00010000;
/** The upper half of the version; another one is another format. */
export const MAJOR_VERSION = 1;
/** Time stamps count seconds from 2000-01-01T00:00:00Z. */
export const EPOCH_SECONDS = 946_684_800;

/** Hyper-V makes, and attaches, none that is larger: block tables count sectors in 32 bits. */
export const MAX_VIRTUAL_SIZE = 2040 * GiB;

/** "Parent Locator Entry", of which the dynamic disk header has eight. */
export const PARENT_LOCATOR = struct('VHD parent locator entry', 24, {
  platformCode: u32be,
  /** Sectors or bytes, depending on the writer. */
  dataSpace: u32be,
  /** Bytes. */
  dataLength: u32be,
  reserved: u32be,
  dataOffset: u64be,
});
/** Platform codes, as the four letters they are. */
export const LOCATOR_RELATIVE = 0x57327275;
export const LOCATOR_ABSOLUTE = 0x57326b75;
export const LOCATOR_MACX = 0x4d616358;
/** A path does not get longer in practice; more is not read. */
export const MAX_LOCATOR_LENGTH = 64 * KiB;

/** "Dynamic Disk Header Format". */
export const DYNAMIC_COOKIE = 'cxsparse';
export const DYNAMIC_HEADER = struct('VHD dynamic disk header', 1024, {
  cookie: bytes(8),
  dataOffset: u64be,
  tableOffset: u64be,
  version: u32be,
  maxTableEntries: u32be,
  blockSize: u32be,
  checksum: u32be,
  parentUuid: uuidField,
  parentTimeStamp: u32be,
  reserved: u32be,
  /** UTF-16, big endian. */
  parentName: bytes(512),
  parentLocators: array(PARENT_LOCATOR, 8),
  reserved2: bytes(256),
});

/** "Block Allocation Table and Data Blocks": first sector of each block, where its bitmap lies. */
export const BAT_ENTRY_SIZE = 4;
export const BAT_UNUSED = 0xffffffff;

/** Bytes of a table, and of a bitmap, that are read and kept together. */
export const BAT_SLICE_SIZE = 4 * KiB;
export const BITMAP_SLICE_SIZE = 512;
/** BAT and bitmaps kept at most. */
export const BAT_CACHE_BYTES = 4 * MiB;
export const BITMAP_CACHE_BYTES = 4 * MiB;
/** Tables up to this size are searched at opening for blocks that overlap. */
export const MAX_COMPARED_ENTRIES = MiB;
/**
 * Pieces of bitmaps of which it is remembered that all their sectors are present: of so many at
 * most, and of so many together.
 */
export const MAX_REMEMBERED_PIECES = 4 * MiB;
export const REMEMBERED_SLICE_SIZE = 4 * KiB;
