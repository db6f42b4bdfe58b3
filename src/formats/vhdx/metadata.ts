/** The metadata region of a VHDX: sizes, sectors, ids, and the parent locator. */
import { u32le, u64le } from '../../common/struct.js';
import { MAX_DISK_SIZE, safeNumber } from '../../common/units.js';
import { NIL_UUID, type Uuid, uuidFromGuid } from '../../common/uuid.js';
import type { ReadableFile } from '../../storage/host-file.js';
import type { NamedRange } from '../file-ranges.js';
import { damaged, unsupported } from '../image-error.js';
import { decodeParentLocator, type ParentLocator } from './parent-locator.js';
import {
  FILE_PARAMETERS,
  FLAG_HAS_PARENT,
  FLAG_IS_REQUIRED,
  FLAG_IS_USER,
  FLAG_LEAVE_BLOCK_ALLOCATED,
  ITEM_FILE_PARAMETERS,
  ITEM_LOGICAL_SECTOR_SIZE,
  ITEM_PARENT_LOCATOR,
  ITEM_PHYSICAL_SECTOR_SIZE,
  ITEM_VIRTUAL_DISK_ID,
  ITEM_VIRTUAL_DISK_SIZE,
  MAX_BLOCK_SIZE,
  MAX_ITEM_LENGTH,
  MAX_TABLE_ENTRIES,
  METADATA_ENTRY,
  METADATA_SIGNATURE,
  METADATA_TABLE,
  METADATA_TABLE_SIZE,
  MIN_BLOCK_SIZE,
} from './vhdx-layout.js';

export interface VhdxMetadata {
  readonly blockSize: number;
  /** All blocks are meant to stay allocated: a fixed disk. */
  readonly leaveBlockAllocated: boolean;
  /** Bytes. */
  readonly virtualSize: number;
  readonly virtualDiskId: Uuid;
  /** 512 or 4096. */
  readonly logicalSectorSize: number;
  /** Undefined for a disk without parent. */
  readonly parentLocator: ParentLocator | undefined;
  readonly notes: readonly string[];
}

/** Known items and the bytes they need. */
const ITEM_SIZES: Readonly<Record<string, number>> = {
  [ITEM_FILE_PARAMETERS]: FILE_PARAMETERS.size,
  [ITEM_VIRTUAL_DISK_SIZE]: 8,
  [ITEM_VIRTUAL_DISK_ID]: 16,
  [ITEM_LOGICAL_SECTOR_SIZE]: 4,
  [ITEM_PHYSICAL_SECTOR_SIZE]: 4,
  [ITEM_PARENT_LOCATOR]: 0,
};

/** @throws DiskError `damaged`, and `not-supported` for an unknown item that is required. */
export function readMetadata(file: ReadableFile, region: NamedRange): VhdxMetadata {
  const { path } = file;
  const notes: string[] = [];
  const items = readItems(file, region, notes);
  const { blockSize, flags } = FILE_PARAMETERS.decode(need(path, items, ITEM_FILE_PARAMETERS));
  const logicalSectorSize = u32le.read(need(path, items, ITEM_LOGICAL_SECTOR_SIZE), 0);
  const size = u64le.read(need(path, items, ITEM_VIRTUAL_DISK_SIZE), 0);
  const virtualSize = safeNumber(size, `${path}: virtual size`);
  checkBlockSize(path, blockSize);
  if (logicalSectorSize !== 512 && logicalSectorSize !== 4096) {
    throw damaged(
      path,
      `logical sectors of ${logicalSectorSize} bytes, only 512 and 4096 are allowed`,
    );
  }
  if (virtualSize % logicalSectorSize !== 0 || virtualSize === 0) {
    throw damaged(path, `virtual size ${virtualSize} is no multiple of a logical sector`);
  }
  if (virtualSize > MAX_DISK_SIZE) {
    throw damaged(path, `virtual size ${virtualSize} is above the 64 TiB of the format`);
  }
  const id = items.get(ITEM_VIRTUAL_DISK_ID);
  const hasParent = (flags & FLAG_HAS_PARENT) !== 0;
  return {
    blockSize,
    leaveBlockAllocated: (flags & FLAG_LEAVE_BLOCK_ALLOCATED) !== 0,
    virtualSize,
    virtualDiskId: id === undefined ? NIL_UUID : uuidFromGuid(id),
    logicalSectorSize,
    parentLocator: hasParent
      ? decodeParentLocator(path, need(path, items, ITEM_PARENT_LOCATOR))
      : undefined,
    notes,
  };
}

function checkBlockSize(path: string, blockSize: number): void {
  const isPower = Number.isInteger(Math.log2(blockSize));
  if (!isPower || blockSize < MIN_BLOCK_SIZE || blockSize > MAX_BLOCK_SIZE) {
    throw damaged(path, `block size ${blockSize}, allowed are powers of two from 1 to 256 MiB`);
  }
}

function need(path: string, items: ReadonlyMap<Uuid, Buffer>, id: Uuid): Buffer {
  const item = items.get(id);
  if (item === undefined) throw damaged(path, `metadata item ${id} is missing`);
  return item;
}

/** The known items' bytes. */
function readItems(file: ReadableFile, region: NamedRange, notes: string[]): Map<Uuid, Buffer> {
  const { path } = file;
  if (region.length < METADATA_TABLE_SIZE) throw damaged(path, 'the metadata region is too short');
  const table = Buffer.alloc(METADATA_TABLE_SIZE);
  file.readExact(table, 0, table.length, region.offset);
  const { signature, entryCount } = METADATA_TABLE.decode(table);
  if (signature.toString('latin1') !== METADATA_SIGNATURE) {
    throw damaged(path, 'the metadata table has no signature');
  }
  if (entryCount > MAX_TABLE_ENTRIES) {
    throw damaged(path, `metadata table says ${entryCount} entries, at most 2047 are allowed`);
  }
  const items = new Map<Uuid, Buffer>();
  for (let index = 0; index < entryCount; index += 1) {
    const entry = METADATA_ENTRY.decode(table, METADATA_TABLE.size + index * METADATA_ENTRY.size);
    const { itemId, flags } = entry;
    const size = (flags & FLAG_IS_USER) === 0 ? ITEM_SIZES[itemId] : undefined;
    if (size === undefined) {
      if ((flags & FLAG_IS_REQUIRED) !== 0) {
        throw unsupported(path, `needs the unknown metadata item ${itemId}`);
      }
      notes.push(`unknown metadata item ${itemId} is ignored`);
      continue;
    }
    if (items.has(itemId)) throw damaged(path, `metadata item ${itemId} is listed twice`);
    items.set(itemId, readItem(file, region, entry, size));
  }
  return items;
}

function readItem(
  file: ReadableFile,
  region: NamedRange,
  entry: ReturnType<typeof METADATA_ENTRY.decode>,
  size: number,
): Buffer {
  const { itemId, offset, length } = entry;
  const inRegion = offset >= METADATA_TABLE_SIZE && offset + length <= region.length;
  if (length < size || length > MAX_ITEM_LENGTH || !inRegion) {
    const place = `at ${offset} of ${length} bytes`;
    throw damaged(file.path, `metadata item ${itemId} ${place} does not fit`);
  }
  const item = Buffer.alloc(length);
  file.readExact(item, 0, length, region.offset + offset);
  return item;
}
