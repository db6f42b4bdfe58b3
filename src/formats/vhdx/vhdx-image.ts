/** Reads VHDX images: fixed, dynamic and differencing, with a log to replay or without. */
import { invariant } from '../../common/assert.js';
import type {
  DiskImage,
  Extent,
  ExtentLocation,
  ExtentState,
  ImageInfo,
  ParentReference,
} from '../../engine/disk-image.js';
import { HostFile, type ReadableFile } from '../../storage/host-file.js';
import { infoOf } from '../count-data.js';
import { FileRanges } from '../file-ranges.js';
import { damaged } from '../image-error.js';
import type { ImageOptions } from '../image-options.js';
import { BlockTable, STATE_DAMAGED } from './block-table.js';
import { replayLog } from './log.js';
import { readMetadata, type VhdxMetadata } from './metadata.js';
import { LINKAGE_KEYS, parentReference } from './parent-locator.js';
import { readRegions } from './region-table.js';
import { SectorBitmap } from './sector-bitmap.js';
import { hasVhdxSignature, readVhdxHeader, type VhdxHeader } from './vhdx-header.js';
import {
  HEADER_AREA_SIZE,
  PAYLOAD_FULLY_PRESENT,
  PAYLOAD_NOT_PRESENT,
  PAYLOAD_PARTIALLY_PRESENT,
} from './vhdx-layout.js';

/** Blocks or stretches of a bitmap that one `extentAt` looks at most: a call stays short. */
const MAX_RUN_STEPS = 4_096;

/** Whether the file that begins with `header` says that it is a VHDX. */
export function probeVhdx(header: Buffer): boolean {
  return hasVhdxSignature(header);
}

/**
 * Opens a VHDX read-only. A log that is not empty is replayed in memory.
 * @throws DiskError `damaged`, `not-supported`, and what `HostFile.open` throws.
 */
export function openVhdx(path: string, { window }: ImageOptions = {}): DiskImage {
  const file = HostFile.open(path, window);
  try {
    return new VhdxImage(file);
  } catch (error) {
    file.close();
    throw error;
  }
}

/**
 * INVARIANT: bytes come only from blocks that `BlockTable` found sound; everything else fails with
 * EIO.
 */
export class VhdxImage implements DiskImage {
  readonly format = 'vhdx';
  readonly path: string;
  readonly files: readonly string[];
  readonly virtualSize: number;
  readonly parent: ParentReference | undefined;
  /** As if the log had been written out. */
  readonly #file: ReadableFile;
  readonly #isReplayed: boolean;
  readonly #header: VhdxHeader;
  readonly #metadata: VhdxMetadata;
  readonly #notes: readonly string[];
  readonly #blockSize: number;
  readonly #sectorSize: number;
  readonly #blocks: BlockTable;
  readonly #bitmap: SectorBitmap;

  constructor(original: ReadableFile) {
    const header = readVhdxHeader(original);
    const { file, notes } = replayLog(original, header);
    const regions = readRegions(file);
    const own = new FileRanges(file.path, [
      { name: 'the header area', offset: 0, length: HEADER_AREA_SIZE },
      { name: 'the log', offset: header.logOffset, length: header.logLength },
      ...regions.all,
    ]);
    const metadata = readMetadata(file, regions.metadata);
    const isDifferencing = metadata.parentLocator !== undefined;
    this.path = file.path;
    this.files = [file.path];
    this.virtualSize = metadata.virtualSize;
    this.parent =
      metadata.parentLocator === undefined
        ? undefined
        : parentReference(file.path, metadata.parentLocator, metadata.logicalSectorSize);
    this.#file = file;
    this.#isReplayed = file !== original;
    this.#header = header;
    this.#metadata = metadata;
    this.#notes = [...header.notes, ...notes, ...regions.notes, ...metadata.notes];
    this.#blockSize = metadata.blockSize;
    this.#sectorSize = metadata.logicalSectorSize;
    this.#blocks = new BlockTable(file, regions.bat, own, { ...metadata, isDifferencing });
    const sectors = isDifferencing ? metadata.virtualSize / metadata.logicalSectorSize : 0;
    this.#bitmap = new SectorBitmap(file, this.#blocks, sectors);
  }

  info(): ImageInfo {
    const { blockSize, logicalSectorSize, leaveBlockAllocated, parentLocator } = this.#metadata;
    const plain = leaveBlockAllocated ? 'fixed' : 'dynamic';
    const linkages = LINKAGE_KEYS.flatMap((key) => {
      const value = parentLocator?.get(key);
      return value === undefined ? [] : [[key.replace('_', '-'), value] as const];
    });
    return infoOf(this, {
      format: 'vhdx',
      subformat: parentLocator === undefined ? plain : 'differencing',
      virtualSize: this.virtualSize,
      unitSize: blockSize,
      logicalSectorSize,
      identity: {
        'data-write-guid': this.#header.dataWriteGuid,
        'file-write-guid': this.#header.fileWriteGuid,
        'virtual-disk-id': this.#metadata.virtualDiskId,
        ...Object.fromEntries(linkages),
      },
      creator: this.#header.creator,
      notes: this.#notes,
    });
  }

  /** Damaged ranges are `data`: reading them is what fails. */
  extentAt(offset: number, length: number, out: Extent): void {
    const end = offset + length;
    this.#stretchAt(offset, end, out);
    const { state } = out;
    let at = offset + out.length;
    for (let steps = 1; at < end && steps < MAX_RUN_STEPS; steps += 1) {
      this.#stretchAt(at, end, out);
      if (out.state !== state) break;
      at += out.length;
    }
    out.state = state;
    out.length = at - offset;
  }

  readAt(target: Buffer, targetOffset: number, offset: number, length: number): void {
    const blockSize = this.#blockSize;
    let done = 0;
    while (done < length) {
      const at = offset + done;
      const block = Math.floor(at / blockSize);
      const inBlock = at - block * blockSize;
      const start = targetOffset + done;
      let count = Math.min(blockSize - inBlock, length - done);
      const state = this.#blocks.state(block);
      if (state === PAYLOAD_FULLY_PRESENT) {
        this.#file.readExact(target, start, count, this.#blocks.offset(block) + inBlock);
      } else if (state === PAYLOAD_PARTIALLY_PRESENT) {
        count = this.#presentBytes(at, count);
        this.#file.readExact(target, start, count, this.#blocks.offset(block) + inBlock);
      } else if (state === STATE_DAMAGED) {
        throw damaged(
          this.path,
          `the table entry of block ${block} (disk offset ${at}) is damaged`,
        );
      } else {
        invariant(state !== PAYLOAD_NOT_PRESENT, `read of absent VHDX block ${block}`);
        target.fill(0, start, start + count);
      }
      done += count;
    }
  }

  locate(offset: number): ExtentLocation | undefined {
    const block = Math.floor(offset / this.#blockSize);
    const state = this.#blocks.state(block);
    if (state !== PAYLOAD_FULLY_PRESENT && state !== PAYLOAD_PARTIALLY_PRESENT) return undefined;
    const inBlock = offset - block * this.#blockSize;
    const left = this.#blockSize - inBlock;
    // What the log changes is not in the file yet.
    if (this.#isReplayed) return { file: this.path, length: left };
    const start = this.#blocks.offset(block) + inBlock;
    const length = Math.min(left, this.#file.size - start);
    return length <= 0 ? undefined : { file: this.path, offset: start, length };
  }

  close(): void {
    this.#file.close();
  }

  /** The run at `offset` up to the end of its block, or of a piece of its bitmap. */
  #stretchAt(offset: number, end: number, out: Extent): void {
    const block = Math.floor(offset / this.#blockSize);
    const blockEnd = Math.min((block + 1) * this.#blockSize, end);
    const state = this.#blocks.state(block);
    out.length = blockEnd - offset;
    if (state === PAYLOAD_PARTIALLY_PRESENT) {
      const sector = Math.floor(offset / this.#sectorSize);
      const isReadable = this.#bitmap.isReadable(sector);
      out.state = !isReadable || this.#bitmap.has(sector) ? 'data' : 'unallocated';
      if (isReadable) out.length = this.#alikeBytes(offset, out.length);
    } else {
      out.state = STATES[state]!;
    }
  }

  /** Bytes from `at` on, at most `count`, whose sectors' bits are equal. */
  #alikeBytes(at: number, count: number): number {
    const sector = Math.floor(at / this.#sectorSize);
    const sectors = Math.ceil((at + count) / this.#sectorSize) - sector;
    const run = this.#bitmap.run(sector, sectors);
    return Math.min((sector + run) * this.#sectorSize - at, count);
  }

  /** Bytes of a partially present block that this image holds from `at` on. */
  #presentBytes(at: number, count: number): number {
    const sector = Math.floor(at / this.#sectorSize);
    if (!this.#bitmap.isReadable(sector)) {
      throw damaged(this.path, `the sector bitmap for disk offset ${at} is damaged or missing`);
    }
    invariant(this.#bitmap.has(sector), `read of absent VHDX sector ${sector}`);
    return this.#alikeBytes(at, count);
  }
}

/**
 * What the states of whole blocks mean, by number: absent, undefined, zero, unmapped, damaged, -,
 * present.
 */
const STATES: readonly ExtentState[] = [
  'unallocated',
  'zero',
  'zero',
  'zero',
  'data',
  'data',
  'data',
];
