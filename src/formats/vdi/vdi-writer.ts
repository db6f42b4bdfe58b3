/** Writes VirtualBox VDI images: dynamic, static and differencing. */
import { randomUUID } from 'node:crypto';
import { u32le } from '../../common/struct.js';
import {
  alignUp,
  divCeil,
  BLOCK_SIZE as HOST_BLOCK,
  MiB,
  SECTOR_SIZE,
} from '../../common/units.js';
import { NIL_UUID, type Uuid } from '../../common/uuid.js';
import type { OutputFile } from '../../storage/output-files.js';
import { unsupported } from '../image-error.js';
import {
  type ImageWriter,
  type ImageWriting,
  type ParentLink,
  WRITE_CHUNK,
} from '../image-writer.js';
import { TableWriter } from '../table-writer.js';
import { checkWriteOptions } from '../write-checks.js';
import {
  VDI_ALIGNMENT,
  VDI_BLOCK_ZERO,
  VDI_ENTRY_SIZE,
  VDI_FILE_INFO,
  VDI_HEADER,
  VDI_HEADER_SIZE_PLUS,
  VDI_LOGICAL_GEOMETRY,
  VDI_SIGNATURE,
  VDI_TYPE_DIFFERENCING,
  VDI_TYPE_DYNAMIC,
  VDI_TYPE_FIXED,
  VDI_VERSION_MAJOR,
  VDI_VERSION_MINOR,
  type VdiHeader,
} from './vdi-layout.js';

const DYNAMIC = 'dynamic';
const STATIC = 'static';
const DIFFERENCING = 'diff';
const NAMES = {
  subformats: [DYNAMIC, STATIC],
  differencing: [DIFFERENCING],
} as const;

const TYPES: Readonly<Record<string, number>> = {
  [DYNAMIC]: VDI_TYPE_DYNAMIC,
  [STATIC]: VDI_TYPE_FIXED,
  [DIFFERENCING]: VDI_TYPE_DIFFERENCING,
};

/** What VirtualBox makes, and all that QEMU reads. */
const BLOCK_SIZE = MiB;
/**
 * Others keep the whole map in memory: it may take 64 MiB (16 TiB in blocks of 1 MiB). Disks above
 * that get larger blocks, differencing ones excepted: nobody could complete a block of which one
 * call of the writer has a part only.
 */
const MAX_MAP_ENTRIES = 16 * 1024 * 1024;

export const vdiWriting: ImageWriting = {
  ...NAMES,
  create(outputs, options) {
    checkWriteOptions(outputs.path, 'vdi', NAMES, options);
    const { virtualSize, subformat, parent } = options;
    const parentIds = parent === undefined ? undefined : idsOf(outputs.path, parent);
    return new VdiWriter(outputs.create(outputs.path), { virtualSize, subformat, parentIds });
  },
};

interface ParentIds {
  readonly parentUuid: Uuid;
  readonly parentModificationUuid: Uuid;
}

/** VirtualBox compares both with what the parent says of itself. */
function idsOf(path: string, parent: ParentLink): ParentIds {
  const { uuid = NIL_UUID, 'modification-uuid': modification } = parent.image.info().identity;
  if (uuid === NIL_UUID) {
    throw unsupported(
      path,
      `its parent ${parent.image.path} has no UUID that a child could name`,
      'give it one with VirtualBox: VBoxManage internalcommands sethduuid PARENT.vdi',
    );
  }
  return { parentUuid: uuid, parentModificationUuid: modification ?? NIL_UUID };
}

function blockSizeFor(virtualSize: number, isDifferencing: boolean): number {
  let blockSize = BLOCK_SIZE;
  while (!isDifferencing && divCeil(virtualSize, blockSize) > MAX_MAP_ENTRIES) blockSize *= 2;
  return blockSize;
}

interface VdiPlan {
  readonly virtualSize: number;
  readonly subformat: string;
  readonly parentIds: ParentIds | undefined;
}

/**
 * INVARIANT: slots of the file are given out in the order of the blocks; a static disk's at once.
 */
class VdiWriter implements ImageWriter {
  readonly granularity: number;
  readonly #file: OutputFile;
  readonly #plan: VdiPlan;
  readonly #isStatic: boolean;
  readonly #blockSize: number;
  readonly #blockCount: number;
  readonly #dataOffset: number;
  readonly #map: TableWriter<number>;
  /** The block written to last, and where its data lies. */
  #block = -1;
  #position = 0;
  #slots = 0;

  constructor(file: OutputFile, plan: VdiPlan) {
    const { virtualSize, subformat, parentIds } = plan;
    this.#file = file;
    this.#plan = plan;
    this.#isStatic = subformat === STATIC;
    this.#blockSize = blockSizeFor(virtualSize, parentIds !== undefined);
    this.granularity = parentIds === undefined ? HOST_BLOCK : WRITE_CHUNK;
    this.#blockCount = divCeil(virtualSize, this.#blockSize);
    const mapEnd = VDI_ALIGNMENT + this.#blockCount * VDI_ENTRY_SIZE;
    this.#dataOffset = alignUp(mapEnd, VDI_ALIGNMENT);
    this.#map = new TableWriter(file, {
      offset: VDI_ALIGNMENT,
      count: this.#blockCount,
      entry: u32le,
      fill: 0xff,
    });
    if (this.#isStatic) this.#allocateAll();
  }

  write(offset: number, source: Buffer, sourceOffset: number, length: number): undefined {
    const block = Math.floor(offset / this.#blockSize);
    if (block !== this.#block) this.#moveTo(block);
    const inBlock = offset - block * this.#blockSize;
    this.#file.write(source, sourceOffset, length, this.#position + inBlock);
  }

  zero(offset: number, length: number): void {
    const end = divCeil(offset + length, this.#blockSize);
    for (let block = offset / this.#blockSize; block < end; block += 1) {
      this.#map.set(block, VDI_BLOCK_ZERO);
    }
  }

  finish(): void {
    this.#map.finish();
    this.#file.truncate(this.#dataOffset + this.#slots * this.#blockSize);
    const header = Buffer.concat([
      VDI_HEADER.encode(this.#header()),
      VDI_LOGICAL_GEOMETRY.encode({ geometry: [0, 0, 0, SECTOR_SIZE] }),
    ]);
    this.#file.write(header, 0, header.length, 0);
  }

  #allocateAll(): void {
    this.#slots = this.#blockCount;
    this.#file.allocate(this.#dataOffset + this.#slots * this.#blockSize);
    for (let block = 0; block < this.#blockCount; block += 1) this.#map.set(block, block);
  }

  #moveTo(block: number): void {
    const slot = this.#isStatic ? block : this.#slots;
    this.#block = block;
    this.#position = this.#dataOffset + slot * this.#blockSize;
    if (this.#isStatic) return;
    this.#map.set(block, slot);
    this.#slots += 1;
  }

  #header(): Partial<VdiHeader> {
    const { virtualSize, subformat, parentIds } = this.#plan;
    return {
      fileInfo: Buffer.from(VDI_FILE_INFO),
      signature: VDI_SIGNATURE,
      versionMajor: VDI_VERSION_MAJOR,
      versionMinor: VDI_VERSION_MINOR,
      headerSize: VDI_HEADER_SIZE_PLUS,
      imageType: TYPES[subformat]!,
      blockMapOffset: VDI_ALIGNMENT,
      dataOffset: this.#dataOffset,
      legacyGeometry: [0, 0, 0, SECTOR_SIZE],
      diskSize: BigInt(virtualSize),
      blockSize: this.#blockSize,
      blockCount: this.#blockCount,
      blocksAllocated: this.#slots,
      imageUuid: randomUUID(),
      modificationUuid: randomUUID(),
      ...parentIds,
    };
  }
}
