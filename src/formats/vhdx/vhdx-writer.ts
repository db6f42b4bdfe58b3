/** Writes VHDX images: dynamic, fixed and differencing. */
import { randomUUID } from 'node:crypto';
import { invariant } from '../../common/assert.js';
import { u64le } from '../../common/struct.js';
import {
  alignUp,
  divCeil,
  BLOCK_SIZE as HOST_BLOCK,
  MiB,
  SECTOR_SIZE,
} from '../../common/units.js';
import type { OutputFile } from '../../storage/output-files.js';
import { setBits } from '../bit-runs.js';
import { unsupported } from '../image-error.js';
import type { ImageWriter, ImageWriting, ParentLink, WriteOptions } from '../image-writer.js';
import { TableWriter } from '../table-writer.js';
import { checkWriteOptions, NO_CHILD } from '../write-checks.js';
import { encodeParentLocator } from './parent-writer.js';
import { BAT_OFFSET, type VhdxShape, writeStructures } from './structure-writer.js';
import {
  ALIGNMENT,
  BAT_ENTRY_SIZE,
  BITMAP_BLOCK_SIZE,
  BITMAP_PRESENT,
  PAYLOAD_FULLY_PRESENT,
  PAYLOAD_PARTIALLY_PRESENT,
  PAYLOAD_ZERO,
  SECTORS_PER_CHUNK,
} from './vhdx-layout.js';

const DYNAMIC = 'dynamic';
const FIXED = 'fixed';
const DIFFERENCING = 'differencing';
const NAMES = {
  subformats: [DYNAMIC, FIXED],
  differencing: [DIFFERENCING],
} as const;

/** Hyper-V's defaults. A child holds little of each block, and a copy elsewhere has no holes. */
const BLOCK_SIZE = 32 * MiB;
const DIFFERENCING_BLOCK_SIZE = 2 * MiB;

export const vhdxWriting: ImageWriting = {
  ...NAMES,
  create(outputs, options) {
    checkWriteOptions(outputs.path, 'vhdx', NAMES, options);
    const shape = shapeOf(outputs.path, options);
    return new VhdxWriter(outputs.create(outputs.path), shape);
  },
};

function shapeOf(path: string, options: WriteOptions): VhdxShape {
  const { virtualSize, subformat, parent } = options;
  const isFixed = subformat === FIXED;
  if (parent !== undefined) return differencingShape(path, virtualSize, parent);
  const blockCount = divCeil(virtualSize, BLOCK_SIZE);
  const perChunk = blocksPerChunk(BLOCK_SIZE, SECTOR_SIZE);
  return {
    virtualSize,
    blockSize: BLOCK_SIZE,
    logicalSectorSize: SECTOR_SIZE,
    isFixed,
    virtualDiskId: randomUUID(),
    // Entries of bitmaps lie between those of chunks even where there are no bitmaps.
    batLength: batLengthOf(blockCount + Math.floor((blockCount - 1) / perChunk)),
    parentLocator: undefined,
  };
}

function differencingShape(path: string, virtualSize: number, parent: ParentLink): VhdxShape {
  const { logicalSectorSize, identity } = parent.image.info();
  if (virtualSize % logicalSectorSize !== 0) {
    throw unsupported(
      path,
      `a disk of ${virtualSize} bytes is no multiple of the logical sectors of ` +
        `${logicalSectorSize} bytes that its parent ${parent.image.path} has`,
      NO_CHILD,
    );
  }
  const blockSize = DIFFERENCING_BLOCK_SIZE;
  const perChunk = blocksPerChunk(blockSize, logicalSectorSize);
  const chunkCount = divCeil(virtualSize, blockSize * perChunk);
  return {
    virtualSize,
    blockSize,
    logicalSectorSize,
    isFixed: false,
    virtualDiskId: identity['virtual-disk-id'] ?? randomUUID(),
    batLength: batLengthOf(chunkCount * (perChunk + 1)),
    parentLocator: encodeParentLocator(path, parent),
  };
}

function blocksPerChunk(blockSize: number, logicalSectorSize: number): number {
  return (SECTORS_PER_CHUNK * logicalSectorSize) / blockSize;
}

function batLengthOf(entryCount: number): number {
  return alignUp(entryCount * BAT_ENTRY_SIZE, ALIGNMENT);
}

/**
 * The file of a differencing disk holds, for every chunk with partially present blocks, their
 * sector bitmap. Whole blocks of zeroes take no space.
 *
 * INVARIANT: blocks lie in the file in their order; a fixed disk's all at once. What nobody wrote
 * of a block that is there reads as the zeroes that the file began as.
 */
class VhdxWriter implements ImageWriter {
  readonly granularity: number;
  readonly #file: OutputFile;
  readonly #shape: VhdxShape;
  readonly #perChunk: number;
  readonly #bat: TableWriter<bigint>;
  readonly #bitmap: SectorBitmapWriter | undefined;
  /** The current block, where its data lies (0: nowhere yet), and bytes of it that are present. */
  #block = -1;
  #position = 0;
  #present = 0;
  #end: number;

  constructor(file: OutputFile, shape: VhdxShape) {
    const { logicalSectorSize, batLength, parentLocator } = shape;
    this.#file = file;
    this.#shape = shape;
    this.granularity = parentLocator === undefined ? HOST_BLOCK : logicalSectorSize;
    this.#perChunk = blocksPerChunk(shape.blockSize, logicalSectorSize);
    this.#bat = new TableWriter(file, {
      offset: BAT_OFFSET,
      count: batLength / BAT_ENTRY_SIZE,
      entry: u64le,
      fill: 0,
    });
    this.#bitmap = parentLocator === undefined ? undefined : new SectorBitmapWriter(shape);
    this.#end = BAT_OFFSET + batLength;
    if (shape.isFixed) this.#allocateAll();
  }

  write(offset: number, source: Buffer, sourceOffset: number, length: number): undefined {
    const { blockSize, isFixed } = this.#shape;
    const block = Math.floor(offset / blockSize);
    const inBlock = offset - block * blockSize;
    if (isFixed) {
      this.#file.write(source, sourceOffset, length, this.#positionOf(block) + inBlock);
      return;
    }
    this.#enter(block, offset, length);
    if (this.#position === 0) this.#position = this.#allocate(blockSize);
    this.#file.write(source, sourceOffset, length, this.#position + inBlock);
  }

  zero(offset: number, length: number): void {
    const { blockSize } = this.#shape;
    const end = offset + length;
    for (let at = offset; at < end; ) {
      const count = Math.min(blockSize - (at % blockSize), end - at);
      this.#enter(Math.floor(at / blockSize), at, count);
      at += count;
    }
  }

  finish(): void {
    if (this.#block >= 0) {
      this.#leaveBlock();
      this.#leaveChunk(this.#chunkOf(this.#block));
    }
    this.#bat.finish();
    this.#file.truncate(this.#end);
    writeStructures(this.#file, this.#shape);
  }

  /** A fixed disk: the places follow from the numbers. */
  #allocateAll(): void {
    const { virtualSize, blockSize } = this.#shape;
    const blockCount = divCeil(virtualSize, blockSize);
    for (let block = 0; block < blockCount; block += 1) {
      this.#setBlock(block, PAYLOAD_FULLY_PRESENT, this.#positionOf(block));
    }
    this.#end = this.#positionOf(blockCount);
    this.#file.allocate(this.#end);
  }

  #positionOf(block: number): number {
    return BAT_OFFSET + this.#shape.batLength + block * this.#shape.blockSize;
  }

  /** Counts a range of one block among what the image holds. */
  #enter(block: number, offset: number, length: number): void {
    if (block !== this.#block) {
      if (this.#block >= 0) {
        this.#leaveBlock();
        const chunk = this.#chunkOf(this.#block);
        if (this.#chunkOf(block) !== chunk) this.#leaveChunk(chunk);
      }
      this.#block = block;
      this.#position = 0;
      this.#present = 0;
    }
    this.#present += length;
    this.#bitmap?.set(offset, length);
  }

  #leaveBlock(): void {
    const { virtualSize, blockSize } = this.#shape;
    const inDisk = Math.min(blockSize, virtualSize - this.#block * blockSize);
    const isWhole = this.#bitmap === undefined || this.#present === inDisk;
    if (isWhole && this.#position === 0) {
      this.#setBlock(this.#block, PAYLOAD_ZERO, 0);
      return;
    }
    if (this.#position === 0) this.#position = this.#allocate(blockSize);
    const state = isWhole ? PAYLOAD_FULLY_PRESENT : PAYLOAD_PARTIALLY_PRESENT;
    if (!isWhole) this.#bitmap!.isNeeded = true;
    this.#setBlock(this.#block, state, this.#position);
  }

  #leaveChunk(chunk: number): void {
    if (this.#bitmap === undefined) return;
    if (this.#bitmap.isNeeded) {
      const position = this.#allocate(BITMAP_BLOCK_SIZE);
      this.#bitmap.write(this.#file, position);
      const entry = chunk * (this.#perChunk + 1) + this.#perChunk;
      this.#bat.set(entry, batEntry(BITMAP_PRESENT, position));
    }
    this.#bitmap.clear();
  }

  #setBlock(block: number, state: number, position: number): void {
    this.#bat.set(block + this.#chunkOf(block), batEntry(state, position));
  }

  #chunkOf(block: number): number {
    return Math.floor(block / this.#perChunk);
  }

  #allocate(length: number): number {
    const position = this.#end;
    this.#end += length;
    return position;
  }
}

/** The lower 20 bits of an offset are those of the state, and reserved ones. */
function batEntry(state: number, position: number): bigint {
  return BigInt(position) | BigInt(state);
}

/** Bits of the current chunk's sectors, and how much of them is not zero. */
class SectorBitmapWriter {
  /** Whether a block of the chunk is partially present. */
  isNeeded = false;
  readonly #bytes = Buffer.alloc(BITMAP_BLOCK_SIZE);
  readonly #sectorSize: number;
  #from = BITMAP_BLOCK_SIZE;
  #to = 0;

  constructor({ logicalSectorSize }: VhdxShape) {
    this.#sectorSize = logicalSectorSize;
  }

  /** Ranges come in ascending order and do not leave the chunk. */
  set(offset: number, length: number): void {
    const first = (offset / this.#sectorSize) % SECTORS_PER_CHUNK;
    const count = length / this.#sectorSize;
    invariant(Number.isInteger(count), `${length} bytes are no whole sectors`);
    setBits(this.#bytes, first, count);
    this.#from = Math.min(this.#from, first >>> 3);
    this.#to = divCeil(first + count, 8);
  }

  write(file: OutputFile, position: number): void {
    file.write(this.#bytes, this.#from, this.#to - this.#from, position + this.#from);
  }

  clear(): void {
    if (this.#to > this.#from) this.#bytes.fill(0, this.#from, this.#to);
    this.#from = BITMAP_BLOCK_SIZE;
    this.#to = 0;
    this.isNeeded = false;
  }
}
