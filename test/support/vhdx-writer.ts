/** Writes VHDX images byte by byte from models: any block and sector size, odd layouts. */
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { crc32cWithoutField } from '../../src/common/checksum.js';
import { MiB } from '../../src/common/units.js';
import { NIL_UUID, type Uuid, uuidToGuid } from '../../src/common/uuid.js';
import {
  BAT_ENTRY_SIZE,
  BITMAP_PRESENT,
  CHECKSUM_OFFSET,
  FILE_IDENTIFIER,
  FILE_PARAMETERS,
  FILE_SIGNATURE,
  FLAG_HAS_PARENT,
  FLAG_IS_REQUIRED,
  FLAG_LEAVE_BLOCK_ALLOCATED,
  HEADER,
  HEADER_OFFSETS,
  HEADER_SIGNATURE,
  HEADER_SIZE,
  ITEM_FILE_PARAMETERS,
  ITEM_LOGICAL_SECTOR_SIZE,
  ITEM_PARENT_LOCATOR,
  ITEM_PHYSICAL_SECTOR_SIZE,
  ITEM_VIRTUAL_DISK_ID,
  ITEM_VIRTUAL_DISK_SIZE,
  LOCATOR_TYPE_VHDX,
  METADATA_ENTRY,
  METADATA_SIGNATURE,
  METADATA_TABLE,
  METADATA_TABLE_SIZE,
  PARENT_LOCATOR,
  PARENT_LOCATOR_ENTRY,
  PAYLOAD_FULLY_PRESENT,
  PAYLOAD_PARTIALLY_PRESENT,
  PAYLOAD_ZERO,
  REGION_BAT,
  REGION_ENTRY,
  REGION_METADATA,
  REGION_TABLE,
  REGION_TABLE_OFFSETS,
  REGION_TABLE_SIGNATURE,
  REGION_TABLE_SIZE,
  SECTORS_PER_CHUNK,
} from '../../src/formats/vhdx/vhdx-layout.js';
import type { DiskModel } from './disk-model.js';

export const LOG_OFFSET = MiB;
export const LOG_LENGTH = MiB;
export const METADATA_OFFSET = 2 * MiB;
export const BAT_OFFSET = 3 * MiB;
export const LOG_GUID: Uuid = '11112222-3333-4444-5555-666677778888';
const RUBBISH = 0xbb;

export interface VhdxPlan {
  /** States of whole blocks, or (differencing) of logical sectors. */
  readonly model: DiskModel;
  readonly blockSize: number;
  readonly logicalSectorSize?: 512 | 4096;
  readonly dataWriteGuid?: Uuid;
  readonly fixed?: boolean;
  /** Key -> value of the parent locator; makes the image a differencing one. */
  readonly parent?: Readonly<Record<string, string>>;
  /** Sequence numbers of the two headers. */
  readonly sequenceNumbers?: readonly [bigint, bigint];
  /**
   * Offset in the file of the nth block that is written (payload or bitmap), instead of the next
   * free MiB.
   */
  readonly place?: (nth: number) => number;
  readonly logGuid?: Uuid;
  /** Metadata and region entries besides the usual ones. */
  readonly extraItems?: readonly { readonly id: Uuid; readonly flags: number }[];
  readonly extraRegions?: readonly { readonly guid: Uuid; readonly required: number }[];
}

export interface VhdxLayout {
  /** Block -> offset in the file. */
  readonly blockOffsets: ReadonlyMap<number, number>;
  /** Chunk -> offset of its sector bitmap block. */
  readonly bitmapOffsets: ReadonlyMap<number, number>;
  readonly blocksPerChunk: number;
  readonly batLength: number;
  readonly fileSize: number;
}

export function writeVhdx(path: string, plan: VhdxPlan): VhdxLayout {
  const fd = openSync(path, 'w+');
  try {
    return new VhdxWriter(fd, plan).run();
  } finally {
    closeSync(fd);
  }
}

class VhdxWriter {
  readonly #fd: number;
  readonly #plan: VhdxPlan;
  readonly #sectorSize: number;
  readonly #blockOffsets = new Map<number, number>();
  readonly #bitmapOffsets = new Map<number, number>();
  readonly #bitmaps = new Map<number, Buffer>();
  readonly #batLength: number;
  readonly #blocksPerChunk: number;
  #next: number;
  #written = 0;
  #end: number;

  constructor(fd: number, plan: VhdxPlan) {
    this.#fd = fd;
    this.#plan = plan;
    this.#sectorSize = plan.logicalSectorSize ?? 512;
    this.#blocksPerChunk = (SECTORS_PER_CHUNK * this.#sectorSize) / plan.blockSize;
    const blocks = Math.ceil(plan.model.size / plan.blockSize);
    const chunks = Math.ceil(blocks / this.#blocksPerChunk);
    const entries =
      plan.parent === undefined ? blocks + chunks - 1 : chunks * (this.#blocksPerChunk + 1);
    this.#batLength = Math.ceil((entries * BAT_ENTRY_SIZE) / MiB) * MiB;
    this.#next = BAT_OFFSET + this.#batLength;
    this.#end = this.#next;
  }

  run(): VhdxLayout {
    const { model, blockSize } = this.#plan;
    for (let block = 0; block * blockSize < model.size; block += 1) this.#writeBlock(block);
    for (const [chunk, bitmap] of this.#bitmaps) {
      const offset = this.#allocate(MiB);
      this.#write(bitmap, offset);
      this.#bitmapOffsets.set(chunk, offset);
      this.#setEntry(
        chunk * (this.#blocksPerChunk + 1) + this.#blocksPerChunk,
        BITMAP_PRESENT,
        offset,
      );
    }
    this.#writeHeaders();
    this.#writeRegionTables();
    this.#writeMetadata();
    ftruncateSync(this.#fd, this.#end);
    return {
      blockOffsets: this.#blockOffsets,
      bitmapOffsets: this.#bitmapOffsets,
      blocksPerChunk: this.#blocksPerChunk,
      batLength: this.#batLength,
      fileSize: this.#end,
    };
  }

  #write(bytes: Buffer, offset: number): void {
    writeSync(this.#fd, bytes, 0, bytes.length, offset);
  }

  #allocate(length: number): number {
    const offset = this.#plan.place?.(this.#written) ?? this.#next;
    this.#written += 1;
    if (this.#plan.place === undefined) this.#next += length;
    this.#end = Math.max(this.#end, offset + length);
    return offset;
  }

  #setEntry(index: number, state: number, offset: number): void {
    const entry = Buffer.alloc(BAT_ENTRY_SIZE);
    entry.writeBigUInt64LE((BigInt(offset / MiB) << 20n) | BigInt(state));
    this.#write(entry, BAT_OFFSET + index * BAT_ENTRY_SIZE);
  }

  #writeBlock(block: number): void {
    const { model, blockSize } = this.#plan;
    const { unitSize } = model;
    const perBlock = blockSize / unitSize;
    const states = model.states.slice(block * perBlock, (block + 1) * perBlock);
    const entry = block + Math.floor(block / this.#blocksPerChunk);
    const kinds = new Set(states);
    if (kinds.has('zero')) {
      if (kinds.size > 1) throw new Error('a block cannot be zero in part');
      this.#setEntry(entry, PAYLOAD_ZERO, 0);
      return;
    }
    if (!kinds.has('data')) return;
    const content = Buffer.alloc(blockSize, RUBBISH);
    for (const [unit, state] of states.entries()) {
      const start = block * blockSize + unit * unitSize;
      if (state !== 'data') continue;
      content.fill(0, unit * unitSize, (unit + 1) * unitSize);
      model.content.copy(content, unit * unitSize, start, Math.min(start + unitSize, model.size));
    }
    const isPartial = kinds.has('unallocated');
    if (isPartial) this.#markSectors(block, states);
    const offset = this.#allocate(blockSize);
    this.#write(content, offset);
    this.#blockOffsets.set(block, offset);
    this.#setEntry(entry, isPartial ? PAYLOAD_PARTIALLY_PRESENT : PAYLOAD_FULLY_PRESENT, offset);
  }

  #markSectors(block: number, states: readonly string[]): void {
    const chunk = Math.floor(block / this.#blocksPerChunk);
    // Bits of blocks that are not partially present mean nothing: set, so that using them shows.
    const bitmap = this.#bitmaps.get(chunk) ?? Buffer.alloc(MiB, 0x5a);
    this.#bitmaps.set(chunk, bitmap);
    const perBlock = this.#plan.blockSize / this.#sectorSize;
    const perUnit = this.#plan.model.unitSize / this.#sectorSize;
    const first = (block % this.#blocksPerChunk) * perBlock;
    for (let sector = 0; sector < perBlock; sector += 1) {
      const isPresent = states[Math.floor(sector / perUnit)] === 'data';
      const bit = first + sector;
      const mask = 1 << (bit % 8);
      const byte = bitmap[bit >> 3]!;
      bitmap[bit >> 3] = isPresent ? byte | mask : byte & ~mask;
    }
  }

  #writeHeaders(): void {
    const { dataWriteGuid = '99999999-0000-0000-0000-000000000001', logGuid = NIL_UUID } =
      this.#plan;
    const creator = Buffer.from('layerdisk test', 'utf16le');
    this.#write(FILE_IDENTIFIER.encode({ signature: Buffer.from(FILE_SIGNATURE), creator }), 0);
    const sequenceNumbers = this.#plan.sequenceNumbers ?? [7n, 8n];
    for (const [index, offset] of HEADER_OFFSETS.entries()) {
      const bytes = Buffer.alloc(HEADER_SIZE);
      const header = HEADER.encode({
        signature: HEADER_SIGNATURE,
        sequenceNumber: sequenceNumbers[index]!,
        fileWriteGuid: '99999999-0000-0000-0000-000000000002',
        dataWriteGuid,
        logGuid,
        version: 1,
        logLength: LOG_LENGTH,
        logOffset: BigInt(LOG_OFFSET),
      });
      header.copy(bytes);
      seal(bytes);
      this.#write(bytes, offset);
    }
  }

  #writeRegionTables(): void {
    const { extraRegions = [] } = this.#plan;
    const entries = [
      { guid: REGION_BAT, fileOffset: BigInt(BAT_OFFSET), length: this.#batLength, required: 1 },
      { guid: REGION_METADATA, fileOffset: BigInt(METADATA_OFFSET), length: MiB, required: 1 },
      ...extraRegions.map((region) => {
        const fileOffset = BigInt(this.#allocate(MiB));
        return { ...region, fileOffset, length: MiB };
      }),
    ];
    const table = Buffer.alloc(REGION_TABLE_SIZE);
    REGION_TABLE.encode({
      signature: REGION_TABLE_SIGNATURE,
      entryCount: entries.length,
    }).copy(table);
    for (const [index, entry] of entries.entries()) {
      REGION_ENTRY.encode(entry).copy(table, REGION_TABLE.size + index * REGION_ENTRY.size);
    }
    seal(table);
    for (const offset of REGION_TABLE_OFFSETS) this.#write(table, offset);
  }

  #writeMetadata(): void {
    const { blockSize, fixed, parent, model, extraItems = [] } = this.#plan;
    let flags = fixed === true ? FLAG_LEAVE_BLOCK_ALLOCATED : 0;
    if (parent !== undefined) flags |= FLAG_HAS_PARENT;
    const size = Buffer.alloc(8);
    size.writeBigUInt64LE(BigInt(model.size));
    const sector = Buffer.alloc(4);
    sector.writeUInt32LE(this.#sectorSize);
    const items: [Uuid, Buffer, number][] = [
      [ITEM_FILE_PARAMETERS, FILE_PARAMETERS.encode({ blockSize, flags }), FLAG_IS_REQUIRED],
      [ITEM_VIRTUAL_DISK_SIZE, size, FLAG_IS_REQUIRED],
      [ITEM_VIRTUAL_DISK_ID, uuidToGuid('99999999-0000-0000-0000-000000000003'), FLAG_IS_REQUIRED],
      [ITEM_LOGICAL_SECTOR_SIZE, sector, FLAG_IS_REQUIRED],
      [ITEM_PHYSICAL_SECTOR_SIZE, sector, FLAG_IS_REQUIRED],
      ...extraItems.map(({ id, flags }) => [id, Buffer.alloc(4), flags] as [Uuid, Buffer, number]),
    ];
    if (parent !== undefined)
      items.push([ITEM_PARENT_LOCATOR, encodeLocator(parent), FLAG_IS_REQUIRED]);
    const region = Buffer.alloc(MiB);
    METADATA_TABLE.encode({
      signature: Buffer.from(METADATA_SIGNATURE),
      entryCount: items.length,
    }).copy(region);
    let offset = METADATA_TABLE_SIZE;
    for (const [index, [itemId, item, itemFlags]] of items.entries()) {
      const entry = METADATA_ENTRY.encode({
        itemId,
        offset,
        length: item.length,
        flags: itemFlags,
      });
      entry.copy(region, METADATA_TABLE.size + index * METADATA_ENTRY.size);
      item.copy(region, offset);
      offset += item.length;
    }
    this.#write(region, METADATA_OFFSET);
  }
}

/** Writes the right checksum into a header or region table. */
export function seal(structure: Buffer): void {
  structure.writeUInt32LE(crc32cWithoutField(structure, CHECKSUM_OFFSET), CHECKSUM_OFFSET);
}

function encodeLocator(values: Readonly<Record<string, string>>): Buffer {
  const pairs = Object.entries(values).map(([key, value]) => [
    Buffer.from(key, 'utf16le'),
    Buffer.from(value, 'utf16le'),
  ]);
  const keyValueCount = pairs.length;
  const header = PARENT_LOCATOR.encode({ locatorType: LOCATOR_TYPE_VHDX, keyValueCount });
  let at = PARENT_LOCATOR.size + pairs.length * PARENT_LOCATOR_ENTRY.size;
  const entries = pairs.map(([key, value]) => {
    const keyOffset = at;
    const valueOffset = at + key!.length;
    at = valueOffset + value!.length;
    return PARENT_LOCATOR_ENTRY.encode({
      keyOffset,
      valueOffset,
      lengths: [key!.length, value!.length],
    });
  });
  return Buffer.concat([header, ...entries, ...pairs.flat()]);
}
