/** Reads VirtualBox VDI images: dynamic, fixed and differencing, any block size. */
import { invariant } from '../../common/assert.js';
import { DiskError } from '../../common/errors.js';
import { divCeil, SECTOR_SIZE, safeNumber } from '../../common/units.js';
import { NIL_UUID } from '../../common/uuid.js';
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
import { EntryTable } from '../entry-table.js';
import { includesSorted } from '../file-ranges.js';
import type { ImageOptions } from '../image-options.js';
import { parentByUuid } from '../parent-by-uuid.js';
import { findSharedSlots } from './shared-slots.js';
import { hasVdiSignature, readVdiHeader } from './vdi-header.js';
import {
  VDI_BLOCK_FREE,
  VDI_BLOCK_ZERO,
  VDI_HEADER,
  VDI_TYPE_DIFFERENCING,
  VDI_TYPE_DYNAMIC,
  VDI_TYPE_FIXED,
  type VdiHeader,
} from './vdi-layout.js';

/**
 * Entries that one `extentAt` looks at most: a run may be told in several parts, a call stays
 * short.
 */
const MAX_RUN_BLOCKS = 256;

/** Whether the file that begins with `header` says that it is a VDI. */
export function probeVdi(header: Buffer): boolean {
  return hasVdiSignature(header);
}

/**
 * Opens a VDI read-only.
 * @throws DiskError `damaged`, `not-supported`, and what `HostFile.open` throws.
 */
export function openVdi(path: string, { window }: ImageOptions = {}): DiskImage {
  const file = HostFile.open(path, window);
  try {
    return new VdiImage(file);
  } catch (error) {
    file.close();
    throw error;
  }
}

/**
 * INVARIANT: block `n` lies at `dataOffset + entry * (extra + blockSize) + extra`; an entry that
 * leads outside the file is found when it is read, and fails that read alone. So does one that
 * another block has, too (in maps that `findSharedSlots` searches).
 */
export class VdiImage implements DiskImage {
  readonly format = 'vdi';
  readonly path: string;
  readonly files: readonly string[];
  readonly virtualSize: number;
  readonly parent: ParentReference | undefined;
  readonly #file: ReadableFile;
  readonly #header: VdiHeader;
  readonly #map: EntryTable;
  readonly #blockSize: number;
  /** File offset of the data of the block with entry 0, and from each to the next. */
  readonly #firstBlock: number;
  readonly #blockStride: number;
  readonly #shared: Uint32Array;

  constructor(file: ReadableFile) {
    const header = readVdiHeader(file);
    this.path = file.path;
    this.files = [file.path];
    this.virtualSize = safeNumber(header.diskSize, `${file.path}: VDI disk size`);
    this.#file = file;
    this.#header = header;
    this.#blockSize = header.blockSize;
    this.#firstBlock = header.dataOffset + header.blockExtraSize;
    this.#blockStride = header.blockExtraSize + header.blockSize;
    const count = divCeil(this.virtualSize, header.blockSize);
    this.#map = EntryTable.inFile(file, { offset: header.blockMapOffset, count });
    this.#shared = findSharedSlots(file, header, count);
    this.parent = header.imageType === VDI_TYPE_DIFFERENCING ? parentOf(header) : undefined;
  }

  info(): ImageInfo {
    const header = this.#header;
    const notes: string[] = [];
    if (this.parent === undefined && header.parentUuid !== NIL_UUID) {
      notes.push('names a parent, but is no differencing image: the parent is not used');
    }
    return infoOf(this, {
      format: 'vdi',
      subformat: SUBFORMATS[header.imageType] ?? 'unknown',
      virtualSize: this.virtualSize,
      unitSize: header.blockSize,
      logicalSectorSize: SECTOR_SIZE,
      identity: {
        uuid: header.imageUuid,
        'modification-uuid': header.modificationUuid,
        'parent-uuid': header.parentUuid,
        'parent-modification-uuid': header.parentModificationUuid,
      },
      creator: creatorOf(header.fileInfo),
      notes,
    });
  }

  extentAt(offset: number, length: number, out: Extent): void {
    const end = offset + length;
    const blockSize = this.#blockSize;
    let block = Math.floor(offset / blockSize);
    const state = stateOf(this.#map.get(block));
    const lastBlock = block + MAX_RUN_BLOCKS;
    let runEnd = (block + 1) * blockSize;
    while (runEnd < end && block < lastBlock) {
      block += 1;
      if (stateOf(this.#map.get(block)) !== state) break;
      runEnd += blockSize;
    }
    out.state = state;
    out.length = Math.min(runEnd, end) - offset;
  }

  readAt(target: Buffer, targetOffset: number, offset: number, length: number): void {
    const blockSize = this.#blockSize;
    let done = 0;
    while (done < length) {
      const at = offset + done;
      const block = Math.floor(at / blockSize);
      const inBlock = at - block * blockSize;
      const entry = this.#map.get(block);
      let count = Math.min(blockSize - inBlock, length - done);
      if (entry === VDI_BLOCK_ZERO) {
        target.fill(0, targetOffset + done, targetOffset + done + count);
      } else {
        invariant(entry !== VDI_BLOCK_FREE, `read of free VDI block ${block}`);
        count = this.#adjacent(block, entry, count, length - done);
        const position = this.#positionOf(block, entry, inBlock, count);
        this.#file.readExact(target, targetOffset + done, count, position);
      }
      done += count;
    }
  }

  locate(offset: number): ExtentLocation | undefined {
    const block = Math.floor(offset / this.#blockSize);
    const entry = this.#map.get(block);
    if (stateOf(entry) !== 'data' || entry >= this.#header.blockCount) return undefined;
    if (includesSorted(this.#shared, entry)) return undefined;
    const inBlock = offset - block * this.#blockSize;
    const start = this.#firstBlock + entry * this.#blockStride;
    const end = Math.min(start + this.#blockSize, this.#file.size);
    const length = end - start - inBlock;
    return length <= 0 ? undefined : { file: this.path, offset: start + inBlock, length };
  }

  close(): void {
    this.#file.close();
  }

  /** How much of `limit` bytes lies in one piece, `inFirst` of them in the first block. */
  #adjacent(block: number, entry: number, inFirst: number, limit: number): number {
    let count = inFirst;
    if (this.#blockStride !== this.#blockSize) return count;
    for (let next = 1; count < limit; next += 1) {
      const following = entry + next;
      if (following >= this.#header.blockCount || this.#map.get(block + next) !== following) break;
      if (includesSorted(this.#shared, following)) break;
      count += Math.min(this.#blockSize, limit - count);
    }
    return count;
  }

  #positionOf(block: number, entry: number, inBlock: number, count: number): number {
    const position = this.#firstBlock + entry * this.#blockStride + inBlock;
    if (includesSorted(this.#shared, entry)) {
      const what = `VDI block ${block} shares slot ${entry} with another block`;
      throw new DiskError('damaged', `${this.path}: ${what}`, { errno: 'EIO' });
    }
    if (entry >= this.#header.blockCount || position + count > this.#file.size) {
      throw new DiskError(
        'damaged',
        `${this.path}: VDI block ${block} is said to lie in slot ${entry}, ` +
          `past the end of the file (${this.#file.size} bytes)`,
        { errno: 'EIO' },
      );
    }
    return position;
  }
}

const SUBFORMATS: Readonly<Record<number, string>> = {
  [VDI_TYPE_DYNAMIC]: 'dynamic',
  [VDI_TYPE_FIXED]: 'fixed',
  [VDI_TYPE_DIFFERENCING]: 'differencing',
};

function stateOf(entry: number): ExtentState {
  if (entry === VDI_BLOCK_FREE) return 'unallocated';
  return entry === VDI_BLOCK_ZERO ? 'zero' : 'data';
}

/** `<<< Oracle VM VirtualBox Disk Image >>>` without the decoration. */
function creatorOf(fileInfo: Buffer): string {
  const end = fileInfo.indexOf(0);
  const text = fileInfo.toString('latin1', 0, end < 0 ? fileInfo.length : end);
  return text
    .replace(/[<>\n]/g, '')
    .replace(/[^ -~]/g, '?')
    .trim();
}

/** A VDI names its parent by UUID alone. */
function parentOf(header: VdiHeader): ParentReference {
  const uuid = header.parentUuid;
  return parentByUuid({
    uuid,
    modificationUuid: header.parentModificationUuid,
    search: {
      extension: '.vdi',
      matches(bytes) {
        if (bytes.length < VDI_HEADER.size || !hasVdiSignature(bytes)) return false;
        return VDI_HEADER.decode(bytes).imageUuid === uuid;
      },
    },
  });
}
