/**
 * Decodes a VDI header and refuses what cannot be read rightly; nothing but the header is looked
 * at.
 */
import { DiskError } from '../../common/errors.js';
import { divCeil, MAX_DISK_SIZE, SECTOR_SIZE, safeNumber } from '../../common/units.js';
import { NIL_UUID } from '../../common/uuid.js';
import type { ReadableFile } from '../../storage/host-file.js';
import {
  GEOMETRY_SECTOR_SIZE,
  VDI_ENTRY_SIZE,
  VDI_HEADER,
  VDI_HEADER_SIZE_MIN,
  VDI_KNOWN_FLAGS,
  VDI_SIGNATURE,
  VDI_TYPE_DIFFERENCING,
  VDI_TYPE_UNDO,
  VDI_VERSION_MAJOR,
  VDI_VERSION_MINOR,
  type VdiHeader,
} from './vdi-layout.js';

/**
 * Reads and checks the header: version, type, flags, sizes, and that the block map lies inside the
 * file.
 * @throws DiskError `damaged` or `not-supported`, naming the file and the field.
 */
export function readVdiHeader(file: ReadableFile): VdiHeader {
  if (file.size < VDI_HEADER.size) {
    throw new DiskError(
      'damaged',
      `${file.path}: ${file.size} bytes are too short for a VDI header of ${VDI_HEADER.size}`,
    );
  }
  const bytes = Buffer.alloc(VDI_HEADER.size);
  file.readExact(bytes, 0, bytes.length, 0);
  const header = VDI_HEADER.decode(bytes);
  checkVersion(file.path, header);
  checkType(file.path, header);
  checkSizes(file.path, header);
  checkMap(file, header);
  return header;
}

/**
 * Whether these first bytes of a file are those of a VDI; also of one that is damaged further on.
 */
export function hasVdiSignature(header: Buffer): boolean {
  const at = VDI_HEADER.offsetOf.signature;
  return header.length >= at + 4 && header.readUInt32LE(at) === VDI_SIGNATURE;
}

function damaged(path: string, what: string): DiskError {
  return new DiskError('damaged', `${path}: ${what}`);
}

function unsupported(path: string, what: string, hint: string): DiskError {
  return new DiskError('not-supported', `${path}: ${what}`, { hint });
}

function checkVersion(path: string, header: VdiHeader): void {
  if (header.signature !== VDI_SIGNATURE) throw damaged(path, 'no VDI signature: not a VDI image');
  const { versionMajor: major, versionMinor: minor } = header;
  if (major !== VDI_VERSION_MAJOR || minor !== VDI_VERSION_MINOR) {
    const hint = 'convert it with VirtualBox: VBoxManage clonemedium OLD.vdi NEW.vdi';
    throw unsupported(path, `VDI version ${major}.${minor} is not supported, only 1.1 is`, hint);
  }
  if (header.headerSize < VDI_HEADER_SIZE_MIN) {
    throw damaged(
      path,
      `VDI header size ${header.headerSize} is below the minimum of ${VDI_HEADER_SIZE_MIN}`,
    );
  }
}

function checkType(path: string, header: VdiHeader): void {
  const { imageType, imageFlags } = header;
  if (imageType === VDI_TYPE_UNDO) {
    const hint = 'merge it with the VirtualBox that made it, then import the result';
    throw unsupported(path, 'VDI undo images are not supported', hint);
  }
  if (imageType < 1 || imageType > VDI_TYPE_DIFFERENCING) {
    throw damaged(path, `VDI image type ${imageType} is unknown`);
  }
  if ((imageFlags & ~VDI_KNOWN_FLAGS) !== 0) {
    const hint = 'convert it with VirtualBox: VBoxManage clonemedium OLD.vdi NEW.vdi';
    const flags = `0x${imageFlags.toString(16)}`;
    throw unsupported(path, `VDI image flags ${flags} hold one that is unknown`, hint);
  }
  if (imageType === VDI_TYPE_DIFFERENCING && header.parentUuid === NIL_UUID) {
    throw damaged(path, 'VDI differencing image without the UUID of its parent');
  }
}

function checkSizes(path: string, header: VdiHeader): void {
  const { blockSize, blockExtraSize, blockCount } = header;
  const sectorSize = header.legacyGeometry[GEOMETRY_SECTOR_SIZE];
  if (sectorSize !== SECTOR_SIZE) {
    throw damaged(path, `VDI sector size is ${sectorSize}, only ${SECTOR_SIZE} exists`);
  }
  // A power of two by the format's own declaration; VirtualBox refuses others.
  if (blockSize < SECTOR_SIZE || !isPowerOfTwo(blockSize)) {
    throw damaged(path, `VDI block size ${blockSize} is not a power of two from 512 on`);
  }
  if (blockExtraSize !== 0 && !isPowerOfTwo(blockExtraSize)) {
    throw damaged(path, `VDI extra size ${blockExtraSize} of a block is not a power of two`);
  }
  const diskSize = safeNumber(header.diskSize, `${path}: VDI disk size`);
  if (diskSize === 0 || diskSize > MAX_DISK_SIZE) {
    throw damaged(path, `VDI disk size ${diskSize} is not from 1 byte to 64 TiB`);
  }
  if (divCeil(diskSize, blockSize) > blockCount) {
    throw damaged(
      path,
      `VDI disk of ${diskSize} bytes needs more than its ${blockCount} blocks of ${blockSize}`,
    );
  }
  if (header.blocksAllocated > blockCount) {
    throw damaged(path, `VDI has ${header.blocksAllocated} blocks allocated of ${blockCount}`);
  }
}

function isPowerOfTwo(value: number): boolean {
  return value > 0 && Number.isInteger(Math.log2(value));
}

function checkMap(file: ReadableFile, header: VdiHeader): void {
  const { blockMapOffset, dataOffset, blockCount } = header;
  const headerEnd = VDI_HEADER.offsetOf.headerSize + header.headerSize;
  const mapEnd = blockMapOffset + blockCount * VDI_ENTRY_SIZE;
  if (blockMapOffset < headerEnd) {
    throw damaged(
      file.path,
      `VDI block map at ${blockMapOffset} overlaps the header (${headerEnd})`,
    );
  }
  if (mapEnd > file.size) {
    throw damaged(
      file.path,
      `VDI block map of ${blockCount} entries ends at ${mapEnd}, past the end of the file ` +
        `(${file.size} bytes)`,
    );
  }
  if (dataOffset < mapEnd) {
    throw damaged(file.path, `VDI data at ${dataOffset} overlaps the block map (to ${mapEnd})`);
  }
}
