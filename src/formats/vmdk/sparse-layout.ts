/**
 * On-disk structures of sparse VMDK extents, all little endian, positions and sizes in sectors of
 * 512 bytes. Sources: VMware "Virtual Disk Format 5.0" (hosted and ESXi sparse extents,
 * stream-optimized), libvmdk's format document.
 */
import { bytes, type Decoded, struct, u8, u16le, u32le, u64le } from '../../common/struct.js';

/** `KDMV`: hosted sparse extents. */
export const SPARSE_MAGIC = 0x564d444b;
/** `COWD`: ESXi (vmfsSparse) extents. */
export const COWD_MAGIC = 0x44574f43;

/**
 * Newest hosted sparse version that is known; 2 brought the zeroed-grain entry, 3 changed block
 * tracking.
 */
export const SPARSE_VERSION_MAX = 3;

/** SparseExtentHeader.flags. */
export const FLAG_NEWLINE_TEST = 1 << 0;
export const FLAG_REDUNDANT_TABLE = 1 << 1;
export const FLAG_ZEROED_GRAINS = 1 << 2;
export const FLAG_COMPRESSED = 1 << 16;
export const FLAG_MARKERS = 1 << 17;
export const FLAGS_KNOWN =
  FLAG_NEWLINE_TEST | FLAG_REDUNDANT_TABLE | FLAG_ZEROED_GRAINS | FLAG_COMPRESSED | FLAG_MARKERS;

/** Unknown ones among these may be ignored, as VMware's open-vmdk does. */
export const FLAGS_COMPATIBLE = 0xffff;

export const COMPRESSION_NONE = 0;
export const COMPRESSION_DEFLATE = 1;

/** `gdOffset` of a streamed file: the header that counts is the footer. */
export const GD_AT_END = 0xffff_ffff_ffff_ffffn;

/** Grain table entry: the parent answers, or nobody. */
export const GTE_UNALLOCATED = 0;
/** Grain table entry, where the flag allows it: reads as zeroes. */
export const GTE_ZEROED = 1;

/** The four bytes that a transfer in text mode would have changed. */
export const NEWLINE_TEST = Buffer.from('\n \r\n', 'latin1');

/** SparseExtentHeader. */
export const SPARSE_HEADER = struct('VMDK sparse extent header', 512, {
  magic: u32le,
  version: u32le,
  flags: u32le,
  capacity: u64le,
  grainSize: u64le,
  descriptorOffset: u64le,
  descriptorSize: u64le,
  entriesPerTable: u32le,
  redundantDirectory: u64le,
  directory: u64le,
  /** Sectors before the first grain. */
  overhead: u64le,
  uncleanShutdown: u8,
  newlineTest: bytes(4),
  compression: u16le,
  padding: bytes(433),
});
export type SparseHeader = Decoded<typeof SPARSE_HEADER>;

/** From the end of a streamed file: footer marker, footer (a header), end-of-stream marker. */
export const FOOTER_OFFSET_FROM_END = 1024;

/**
 * What precedes a compressed grain: its first sector on the disk, and the length of the data that
 * follow.
 */
export const GRAIN_MARKER = struct('VMDK grain marker', 12, { sector: u64le, size: u32le });

/**
 * What precedes tables, the directory and the footer of a streamed file; `size` 0 tells it from a
 * grain's.
 */
export const METADATA_MARKER = struct('VMDK metadata marker', 512, {
  /** Sectors that follow. */
  sectors: u64le,
  size: u32le,
  type: u32le,
  padding: bytes(496),
});
export const MARKER_END_OF_STREAM = 0;
export const MARKER_TABLE = 1;
export const MARKER_DIRECTORY = 2;
export const MARKER_FOOTER = 3;

/** COWDisk_Header; the union holds a geometry or the parent's name, neither of which is used. */
export const COWD_HEADER = struct('VMDK COWD header', 2048, {
  magic: u32le,
  version: u32le,
  flags: u32le,
  capacity: u32le,
  grainSize: u32le,
  directory: u32le,
  directoryEntries: u32le,
  freeSector: u32le,
  parent: bytes(1028),
  generation: u32le,
  name: bytes(60),
  description: bytes(512),
  savedGeneration: u32le,
  reserved: bytes(8),
  uncleanShutdown: u32le,
  padding: bytes(396),
});
export const COWD_ENTRIES_PER_TABLE = 4096;
