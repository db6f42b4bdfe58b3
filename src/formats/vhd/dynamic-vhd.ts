/** A dynamic or differencing VHD: blocks that are allocated when they are first written. */
import { invariant } from '../../common/assert.js';
import { SECTOR_SIZE } from '../../common/units.js';
import type {
  DiskImage,
  Extent,
  ExtentLocation,
  ImageInfo,
  ParentReference,
} from '../../engine/disk-image.js';
import type { ReadableFile } from '../../storage/host-file.js';
import { infoOf } from '../count-data.js';
import { FileRanges } from '../file-ranges.js';
import { damaged } from '../image-error.js';
import { BlockTable, DAMAGED, UNUSED } from './block-table.js';
import { type DynamicHeader, readDynamicHeader } from './dynamic-header.js';
import { parentReference } from './parent-locator.js';
import type { VhdFooter } from './vhd-footer.js';
import { DISK_TYPE_DIFFERENCING, DYNAMIC_HEADER, FOOTER } from './vhd-layout.js';

/** Blocks or stretches of a bitmap that one `extentAt` looks at most: a call stays short. */
const MAX_RUN_STEPS = 4_096;

/**
 * INVARIANT: bytes come only from blocks that `BlockTable` found sound, and only from sectors whose
 * bit is set; everything else is the parent's, or fails with EIO.
 */
export class DynamicVhd implements DiskImage {
  readonly format = 'vhd';
  readonly path: string;
  readonly files: readonly string[];
  readonly virtualSize: number;
  readonly parent: ParentReference | undefined;
  readonly #file: ReadableFile;
  readonly #footer: VhdFooter;
  readonly #header: DynamicHeader;
  readonly #blockSize: number;
  readonly #blocks: BlockTable;

  /** @throws DiskError as `readDynamicHeader` does. */
  constructor(file: ReadableFile, footer: VhdFooter) {
    const header = readDynamicHeader(file, footer);
    const own = new FileRanges(file.path, [
      { name: 'the copy of the footer', offset: 0, length: FOOTER.size },
      { name: 'the dynamic disk header', offset: header.offset, length: DYNAMIC_HEADER.size },
      { name: 'the block table', offset: header.tableOffset, length: header.tableLength },
      { name: 'the footer', offset: footer.end, length: file.size - footer.end },
    ]);
    this.path = file.path;
    this.files = [file.path];
    this.virtualSize = footer.virtualSize;
    this.parent =
      footer.diskType === DISK_TYPE_DIFFERENCING
        ? parentReference(file, header, footer.creator)
        : undefined;
    this.#file = file;
    this.#footer = footer;
    this.#header = header;
    this.#blockSize = header.blockSize;
    this.#blocks = new BlockTable(file, header, { own, virtualSize: footer.virtualSize });
  }

  info(): ImageInfo {
    const { uuid, timeStamp, creator, notes } = this.#footer;
    const isDifferencing = this.parent !== undefined;
    return infoOf(this, {
      format: 'vhd',
      subformat: isDifferencing ? 'differencing' : 'dynamic',
      virtualSize: this.virtualSize,
      unitSize: this.#blockSize,
      logicalSectorSize: SECTOR_SIZE,
      identity: {
        uuid,
        'time-stamp': timeStamp,
        ...(isDifferencing ? { 'parent-uuid': this.#header.fields.parentUuid } : {}),
      },
      creator,
      notes,
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
    let done = 0;
    while (done < length) {
      const at = offset + done;
      const block = Math.floor(at / this.#blockSize);
      const inBlock = at - block * this.#blockSize;
      const found = this.#blocks.find(block);
      if (found === DAMAGED) {
        throw damaged(
          this.path,
          `the table entry of block ${block} (disk offset ${at}) is damaged`,
        );
      }
      invariant(found !== UNUSED, `read of unused VHD block ${block}`);
      const run = this.#runAt(block, inBlock, length - done);
      invariant(run > 0, `read of absent VHD sectors at ${at}`);
      this.#file.readExact(target, targetOffset + done, run, found + inBlock);
      done += run;
    }
  }

  locate(offset: number): ExtentLocation | undefined {
    const block = Math.floor(offset / this.#blockSize);
    const found = this.#blocks.find(block);
    if (found < 0) return undefined;
    const inBlock = offset - block * this.#blockSize;
    const start = found + inBlock;
    const length = Math.min(this.#blockSize - inBlock, this.#file.size - start);
    return length <= 0 ? undefined : { file: this.path, offset: start, length };
  }

  close(): void {
    this.#file.close();
  }

  /** The run at `offset` up to the end of its block, or of a piece of its bitmap. */
  #stretchAt(offset: number, end: number, out: Extent): void {
    const block = Math.floor(offset / this.#blockSize);
    const inBlock = offset - block * this.#blockSize;
    const found = this.#blocks.find(block);
    if (found < 0) {
      out.state = found === UNUSED ? 'unallocated' : 'data';
      out.length = Math.min(this.#blockSize - inBlock, end - offset);
      return;
    }
    const run = this.#runAt(block, inBlock, end - offset);
    out.state = run > 0 ? 'data' : 'unallocated';
    out.length = Math.abs(run);
  }

  /**
   * Bytes of a block from `inBlock` on, at most `length`, in sectors that are alike: positive when
   * they are present, negative when they are not.
   */
  #runAt(block: number, inBlock: number, length: number): number {
    const sector = Math.floor(inBlock / SECTOR_SIZE);
    const inSector = inBlock - sector * SECTOR_SIZE;
    const bytes = Math.min(length, this.#blockSize - inBlock);
    const sectors = Math.ceil((inSector + bytes) / SECTOR_SIZE);
    const run = this.#blocks.run(block, sector, sectors);
    const count = Math.min(Math.abs(run) * SECTOR_SIZE - inSector, bytes);
    return run > 0 ? count : -count;
  }
}
