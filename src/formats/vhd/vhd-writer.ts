/** Writes VHD images: dynamic, fixed and differencing. */
import { u32be } from '../../common/struct.js';
import {
  alignUp,
  divCeil,
  GiB,
  BLOCK_SIZE as HOST_BLOCK,
  KiB,
  MiB,
  SECTOR_SIZE,
} from '../../common/units.js';
import type { OutputFile } from '../../storage/output-files.js';
import { reverseBits, setBits } from '../bit-runs.js';
import { unsupported } from '../image-error.js';
import type { ImageWriter, ImageWriting } from '../image-writer.js';
import { TableWriter } from '../table-writer.js';
import { checkWriteOptions } from '../write-checks.js';
import { encodeFooter, seal } from './footer-writer.js';
import { describeParent, type VhdParent, writeLocators } from './parent-writer.js';
import {
  BAT_ENTRY_SIZE,
  DISK_TYPE_DIFFERENCING,
  DISK_TYPE_DYNAMIC,
  DISK_TYPE_FIXED,
  DYNAMIC_COOKIE,
  DYNAMIC_HEADER,
  FOOTER,
  MAX_VIRTUAL_SIZE,
  NO_OFFSET,
  VERSION,
} from './vhd-layout.js';

const DYNAMIC = 'dynamic';
const FIXED = 'fixed';
const DIFFERENCING = 'differencing';
const NAMES = {
  subformats: [DYNAMIC, FIXED],
  differencing: [DIFFERENCING],
} as const;

/** The usual one: Hyper-V, Virtual PC, VirtualBox and QEMU make no other. */
const BLOCK_SIZE = 2 * MiB;
const BITMAP_SIZE = BLOCK_SIZE / SECTOR_SIZE / 8;
/**
 * The data of blocks, not the bitmaps in front of them, begins at multiples of it, as Hyper-V has
 * it: the pages of the host are not cut then.
 */
const DATA_ALIGNMENT = 4 * KiB;
const HEADER_OFFSET = FOOTER.size;
const TABLE_OFFSET = DATA_ALIGNMENT;

export const vhdWriting: ImageWriting = {
  ...NAMES,
  create(outputs, options) {
    const { path } = outputs;
    checkWriteOptions(path, 'vhd', NAMES, options);
    const { virtualSize, subformat } = options;
    if (virtualSize > MAX_VIRTUAL_SIZE) {
      throw unsupported(
        path,
        `a VHD holds at most ${MAX_VIRTUAL_SIZE / GiB} GiB, the disk is of ${virtualSize} bytes`,
        'write it as VHDX: --format vhdx',
      );
    }
    if (subformat === FIXED) return new FixedVhdWriter(outputs.create(path), virtualSize);
    const tableSize = divCeil(virtualSize, BLOCK_SIZE) * BAT_ENTRY_SIZE;
    const start = alignUp(TABLE_OFFSET + tableSize, DATA_ALIGNMENT);
    const parent =
      options.parent === undefined
        ? undefined
        : describeParent(path, options.parent, { virtualSize, start });
    return new DynamicVhdWriter(outputs.create(path), { virtualSize, parent, start });
  },
};

class FixedVhdWriter implements ImageWriter {
  readonly granularity = HOST_BLOCK;
  readonly #file: OutputFile;
  readonly #virtualSize: number;

  constructor(file: OutputFile, virtualSize: number) {
    this.#file = file;
    this.#virtualSize = virtualSize;
    file.allocate(virtualSize + FOOTER.size);
  }

  write(offset: number, source: Buffer, sourceOffset: number, length: number): undefined {
    this.#file.write(source, sourceOffset, length, offset);
  }

  zero(): void {
    // Fixed disks have no parent, and the file began as zeroes.
  }

  finish(): void {
    const footer = encodeFooter(DISK_TYPE_FIXED, this.#virtualSize, 0);
    this.#file.write(footer, 0, footer.length, this.#virtualSize);
  }
}

interface DynamicPlan {
  readonly virtualSize: number;
  readonly parent: VhdParent | undefined;
  /** The first byte behind the block table. */
  readonly start: number;
}

/**
 * INVARIANT: blocks lie in the file in their order, each behind its bitmap. What nobody wrote of
 * them reads as the zeroes that the file began as, also by readers that ignore bitmaps.
 */
class DynamicVhdWriter implements ImageWriter {
  readonly granularity: number;
  readonly #file: OutputFile;
  readonly #plan: DynamicPlan;
  readonly #blockCount: number;
  readonly #table: TableWriter<number>;
  /** Of the current block, least significant bit first. */
  readonly #bitmap = Buffer.alloc(BITMAP_SIZE);
  /** The block written to last, and where its data lies. */
  #block = -1;
  #position = 0;
  #end: number;

  constructor(file: OutputFile, plan: DynamicPlan) {
    this.granularity = plan.parent === undefined ? HOST_BLOCK : SECTOR_SIZE;
    this.#file = file;
    this.#plan = plan;
    this.#blockCount = divCeil(plan.virtualSize, BLOCK_SIZE);
    const perSector = SECTOR_SIZE / BAT_ENTRY_SIZE;
    this.#table = new TableWriter(file, {
      offset: TABLE_OFFSET,
      count: alignUp(this.#blockCount, perSector),
      entry: u32be,
      fill: 0xff,
    });
    this.#end = plan.parent?.end ?? plan.start;
  }

  write(offset: number, source: Buffer, sourceOffset: number, length: number): undefined {
    this.#enter(offset, length);
    const inBlock = offset - this.#block * BLOCK_SIZE;
    this.#file.write(source, sourceOffset, length, this.#position + inBlock);
  }

  zero(offset: number, length: number): void {
    const end = offset + length;
    for (let at = offset; at < end; ) {
      const count = Math.min(BLOCK_SIZE - (at % BLOCK_SIZE), end - at);
      this.#enter(at, count);
      at += count;
    }
  }

  finish(): void {
    const { virtualSize, parent } = this.#plan;
    if (this.#block >= 0) this.#leave();
    this.#table.finish();
    const type = parent === undefined ? DISK_TYPE_DYNAMIC : DISK_TYPE_DIFFERENCING;
    const footer = encodeFooter(type, virtualSize, HEADER_OFFSET);
    const header = this.#header();
    this.#file.write(footer, 0, footer.length, 0);
    this.#file.write(header, 0, header.length, HEADER_OFFSET);
    if (parent !== undefined) writeLocators(this.#file, parent);
    this.#file.write(footer, 0, footer.length, this.#end);
  }

  /** Counts a range, which lies in one block, among what the image holds. */
  #enter(offset: number, length: number): void {
    const block = Math.floor(offset / BLOCK_SIZE);
    if (block !== this.#block) {
      if (this.#block >= 0) this.#leave();
      this.#block = block;
      this.#position = alignUp(this.#end + BITMAP_SIZE, DATA_ALIGNMENT);
      this.#end = this.#position + BLOCK_SIZE;
      this.#table.set(block, (this.#position - BITMAP_SIZE) / SECTOR_SIZE);
      this.#bitmap.fill(0);
    }
    const inBlock = offset - block * BLOCK_SIZE;
    setBits(this.#bitmap, inBlock / SECTOR_SIZE, length / SECTOR_SIZE);
  }

  #leave(): void {
    reverseBits(this.#bitmap);
    this.#file.write(this.#bitmap, 0, BITMAP_SIZE, this.#position - BITMAP_SIZE);
  }

  #header(): Buffer {
    const header = DYNAMIC_HEADER.encode({
      cookie: Buffer.from(DYNAMIC_COOKIE),
      dataOffset: NO_OFFSET,
      tableOffset: BigInt(TABLE_OFFSET),
      version: VERSION,
      maxTableEntries: this.#blockCount,
      blockSize: BLOCK_SIZE,
      ...this.#plan.parent?.fields,
    });
    return seal(header, DYNAMIC_HEADER.offsetOf.checksum);
  }
}
