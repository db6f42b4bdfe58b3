/**
 * On-disk structures of VDI 1.1, as VirtualBox declares them in its VDICore.h; all numbers little
 * endian.
 */
import { array, bytes, type Decoded, struct, u16le, u32le, u64le } from '../../common/struct.js';
import { MiB } from '../../common/units.js';
import { guidField } from '../../common/uuid.js';

export const VDI_SIGNATURE = 0xbeda107f;
export const VDI_VERSION_MAJOR = 1;
export const VDI_VERSION_MINOR = 1;

/** VDIIMAGETYPE. */
export const VDI_TYPE_DYNAMIC = 1;
export const VDI_TYPE_FIXED = 2;
export const VDI_TYPE_UNDO = 3;
export const VDI_TYPE_DIFFERENCING = 4;

/**
 * Image flags in the header: zero-fill new blocks, fixed, differencing. Anything else VirtualBox
 * refuses too.
 */
export const VDI_KNOWN_FLAGS = 0x0001 | 0x0100 | 0x0200;

/** Block map entry: nothing is stored; the parent answers, or nobody. */
export const VDI_BLOCK_FREE = 0xffffffff;
/** Block map entry: nothing is stored; reads as zeroes, whatever the parent holds. */
export const VDI_BLOCK_ZERO = 0xfffffffe;

/** VDIDISKGEOMETRY: cylinders, heads, sectors, bytes per sector. */
const GEOMETRY = array(u32le, 4);
/** Index of the sector size in a geometry. */
export const GEOMETRY_SECTOR_SIZE = 3;

/** VDIPREHEADER and VDIHEADER1 together; an offset here is an offset in the file. */
export const VDI_HEADER = struct('VDI header', 456, {
  fileInfo: bytes(64),
  signature: u32le,
  versionMinor: u16le,
  versionMajor: u16le,
  /**
   * Bytes from this field on: 384 (VDIHEADER1), 400 (VDIHEADER1PLUS, which appends a second
   * geometry).
   */
  headerSize: u32le,
  imageType: u32le,
  imageFlags: u32le,
  comment: bytes(256),
  blockMapOffset: u32le,
  dataOffset: u32le,
  legacyGeometry: GEOMETRY,
  unused: u32le,
  diskSize: u64le,
  blockSize: u32le,
  /** Bytes that precede every block's data. */
  blockExtraSize: u32le,
  blockCount: u32le,
  blocksAllocated: u32le,
  imageUuid: guidField,
  modificationUuid: guidField,
  parentUuid: guidField,
  parentModificationUuid: guidField,
});

export type VdiHeader = Decoded<typeof VDI_HEADER>;

/** VDIHEADER1PLUS appends the geometry that the guest sees; without cylinders it is unset. */
export const VDI_LOGICAL_GEOMETRY = struct('VDI logical geometry', 16, { geometry: GEOMETRY });
export const VDI_HEADER_SIZE_PLUS =
  VDI_HEADER.size + VDI_LOGICAL_GEOMETRY.size - VDI_HEADER.offsetOf.headerSize;
/** What VirtualBox calls itself in new images. */
export const VDI_FILE_INFO = '<<< Oracle VM VirtualBox Disk Image >>>\n';
/** Where map and data of a new image begin are multiples of it, as of VirtualBox. */
export const VDI_ALIGNMENT = MiB;

/** What `headerSize` is at least: the header without what precedes the field. */
export const VDI_HEADER_SIZE_MIN = VDI_HEADER.size - VDI_HEADER.offsetOf.headerSize;
/** Bytes of one block map entry. */
export const VDI_ENTRY_SIZE = 4;
