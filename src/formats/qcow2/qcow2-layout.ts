/** The on-disk structures of qcow2 (QEMU's docs/interop/qcow2.txt) and this reader's limits. */
import { struct, u8, u16be, u32be, u64be } from '../../common/struct.js';
import { KiB, MiB } from '../../common/units.js';

/** `QFI\xfb`. */
export const QCOW2_MAGIC = 0x514649fb;

/** Section "Header", all versions. */
export const HEADER_V2 = struct('qcow2 header', 72, {
  magic: u32be,
  version: u32be,
  backingFileOffset: u64be,
  backingFileSize: u32be,
  clusterBits: u32be,
  size: u64be,
  cryptMethod: u32be,
  l1Size: u32be,
  l1TableOffset: u64be,
  refcountTableOffset: u64be,
  refcountTableClusters: u32be,
  snapshotCount: u32be,
  snapshotsOffset: u64be,
});

/** What version 3 adds directly behind it. */
export const HEADER_V3 = struct('qcow2 header, version 3 part', 32, {
  incompatibleFeatures: u64be,
  compatibleFeatures: u64be,
  autoclearFeatures: u64be,
  refcountOrder: u32be,
  headerLength: u32be,
});

/** "Additional fields": present when the header is long enough. */
export const COMPRESSION_TYPE_OFFSET = 104;
export const COMPRESSION_TYPE = u8;
export const COMPRESSION_ZLIB = 0;
export const COMPRESSION_ZSTD = 1;

export const INCOMPATIBLE_DIRTY = 0;
export const INCOMPATIBLE_CORRUPT = 1;
export const INCOMPATIBLE_DATA_FILE = 2;
export const INCOMPATIBLE_COMPRESSION = 3;
export const INCOMPATIBLE_EXTENDED_L2 = 4;
/** Known bits of each feature field. */
export const KNOWN_INCOMPATIBLE = 0b11111n;
export const KNOWN_COMPATIBLE = 0b1n;
export const KNOWN_AUTOCLEAR = 0b11n;
export const AUTOCLEAR_RAW_DATA_FILE = 1;

export const CRYPT_NAMES: Readonly<Record<number, string>> = { 1: 'AES', 2: 'LUKS' };

/** Section "Header extensions": type and length, then the data, padded to 8 bytes. */
export const EXTENSION = struct('qcow2 header extension', 8, { type: u32be, length: u32be });
export const EXTENSION_ALIGNMENT = 8;
export const EXTENSION_END = 0;
export const EXTENSION_BACKING_FORMAT = 0xe2792aca;
export const EXTENSION_FEATURE_NAMES = 0x6803f857;
export const EXTENSION_DATA_FILE = 0x44415441;
/** An entry of the feature name table: kind (0 = incompatible), bit, name of 46 bytes. */
export const FEATURE_NAME_SIZE = 48;

/** Section "Snapshots": the fixed part of an entry; extra data, id and name follow. */
export const SNAPSHOT_ENTRY = struct('qcow2 snapshot table entry', 40, {
  l1TableOffset: u64be,
  l1Size: u32be,
  idSize: u16be,
  nameSize: u16be,
  dateSeconds: u32be,
  dateNanoseconds: u32be,
  vmClock: u64be,
  vmStateSize: u32be,
  extraDataSize: u32be,
});
/** The part of the extra data that is known. */
export const SNAPSHOT_EXTRA = struct('qcow2 snapshot extra data', 16, {
  vmStateSize: u64be,
  diskSize: u64be,
});

/** Entries of the L1, L2 and refcount tables. */
export const ENTRY_SIZE = 8;
export const EXTENDED_ENTRY_SIZE = 16;
export const SUBCLUSTERS = 32;
/** Bits 9-55 of an entry, as the upper and the lower half: where the cluster lies. */
export const OFFSET_MASK_HIGH = 0x00ffffff;
export const OFFSET_MASK_LOW = 0xfffffe00;
/** In the upper half. */
export const COPIED_HIGH = 0x80000000;
export const COMPRESSED_HIGH = 0x40000000;
/** In the lower half. */
export const ZERO_LOW = 1;

export const MIN_CLUSTER_BITS = 9;
/** QEMU's own limit: 2 MiB. */
export const MAX_CLUSTER_BITS = 21;
export const MIN_CLUSTER_BITS_EXTENDED_L2 = 14;
export const MAX_REFCOUNT_ORDER = 6;
export const MAX_BACKING_NAME = 1023;
/** QEMU's own limits: 32 MiB of L1 table, 8 MiB of refcount table, 65,536 snapshots. */
export const MAX_L1_BYTES = 32 * MiB;
export const MAX_REFCOUNT_TABLE_BYTES = 8 * MiB;
export const MAX_SNAPSHOTS = 65_536;
/** Ours: 65,536 entries with short names take half of it. */
export const MAX_SNAPSHOT_TABLE_BYTES = 16 * MiB;
/** Bytes of an L2 table that are read and kept together. */
export const L2_SLICE_SIZE = 4 * KiB;
/** L2 entries kept at most: 128 GiB of disk at the usual cluster size. */
export const L2_CACHE_BYTES = 16 * MiB;
/** Decompressed clusters kept at most. */
export const CLUSTER_CACHE_BYTES = 4 * MiB;

/** Of images that are written here: QEMU's own choices, and 16 bits a reference count. */
export const WRITTEN_CLUSTER_BITS = 16;
export const WRITTEN_CLUSTER_SIZE = 64 * KiB;
export const WRITTEN_REFCOUNT_ORDER = 4;
/** Section "Clusters": deflate streams have a window of 4 KiB. */
export const DEFLATE_WINDOW_BITS = 12;
