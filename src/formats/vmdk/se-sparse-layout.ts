/**
 * On-disk structures of seSparse extents, all little endian, positions and sizes in sectors of 512
 * bytes. Source: the announcement of QEMU's seSparse support (qemu-block, April 2019) and that
 * driver's checks.
 */
import { array, bytes, type Decoded, struct, u64le } from '../../common/struct.js';

export const SESPARSE_MAGIC = 0xcafebaben;
export const SESPARSE_VOLATILE_MAGIC = 0xcafecafen;
/** 2.1. */
export const SESPARSE_VERSION = 0x2_0000_0001n;
export const SESPARSE_FLAGS = 0n;
/** The only grain and table sizes seen. */
export const SESPARSE_GRAIN_SECTORS = 8;
export const SESPARSE_TABLE_SECTORS = 64;
/** High word of a grain directory entry; the low word is the number of the table. */
export const SESPARSE_DIRECTORY_TYPE = 0x10000000;

/** The constant header, at the start of the file. */
export const SESPARSE_HEADER = struct('VMDK seSparse header', 512, {
  magic: u64le,
  version: u64le,
  capacity: u64le,
  grainSize: u64le,
  grainTableSize: u64le,
  flags: u64le,
  reserved: array(u64le, 4),
  volatileHeaderOffset: u64le,
  volatileHeaderSize: u64le,
  journalHeaderOffset: u64le,
  journalHeaderSize: u64le,
  journalOffset: u64le,
  journalSize: u64le,
  directoryOffset: u64le,
  directorySize: u64le,
  tablesOffset: u64le,
  tablesSize: u64le,
  freeBitmapOffset: u64le,
  freeBitmapSize: u64le,
  backMapOffset: u64le,
  backMapSize: u64le,
  grainsOffset: u64le,
  grainsSize: u64le,
  padding: bytes(304),
});
export type SeSparseHeader = Decoded<typeof SESPARSE_HEADER>;

/** The volatile header, which changes while the disk is open. */
export const SESPARSE_VOLATILE_HEADER = struct('VMDK seSparse volatile header', 512, {
  magic: u64le,
  freeTable: u64le,
  nextTransaction: u64le,
  /** Not 0: the journal holds metadata that are not in the tables yet. */
  replayJournal: u64le,
  padding: bytes(480),
});
