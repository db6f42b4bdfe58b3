/** Reads VMDK disks: sparse, flat, streamed and split ones, ESXi's, and snapshots of them. */
import { DiskError } from '../../common/errors.js';
import { alignUp, SECTOR_SIZE } from '../../common/units.js';
import type {
  DiskImage,
  Extent,
  ExtentLocation,
  ImageInfo,
  ParentReference,
} from '../../engine/disk-image.js';
import type { HostFile } from '../../storage/host-file.js';
import { infoOf } from '../count-data.js';
import type { ImageOptions } from '../image-options.js';
import {
  isDescriptor,
  MAX_DESCRIPTOR_SIZE,
  parseDescriptor,
  type VmdkDescriptor,
} from './descriptor.js';
import type { VmdkExtent } from './extent.js';
import { identityOf, parentOf } from './identity.js';
import { ExtentOpener } from './open-extents.js';
import { SESPARSE_MAGIC } from './se-sparse-layout.js';
import { SparseExtent } from './sparse-extent.js';
import { readEmbeddedDescriptor, readSparseHeader, sparseGeometry } from './sparse-header.js';
import { COWD_MAGIC, SPARSE_MAGIC } from './sparse-layout.js';

/** Whether the file that begins with `header` says that it is a VMDK, or an extent of one. */
export function probeVmdk(header: Buffer): boolean {
  return isDescriptor(header) || isExtentFile(header);
}

/**
 * Opens a VMDK read-only: its descriptor, or the one file that holds descriptor and data.
 * @throws DiskError `damaged`, `not-supported`, `not-permitted` (extents outside the folder), and
 * what `HostFile.open` throws.
 */
export function openVmdk(path: string, options: ImageOptions = {}): DiskImage {
  const opener = new ExtentOpener(path, options);
  try {
    const file = opener.openMain();
    const head = Buffer.alloc(Math.min(SECTOR_SIZE, file.size));
    file.readExact(head, 0, head.length, 0);
    if (hasMagic(head, SPARSE_MAGIC)) return openMonolithic(file, opener);
    if (isExtentFile(head)) {
      throw new DiskError(
        'not-supported',
        `${path} is an extent of a VMDK, without its descriptor`,
        {
          hint: 'give the .vmdk text file that names it',
        },
      );
    }
    if (!isDescriptor(head)) throw new DiskError('damaged', `${path}: not a VMDK`);
    return new VmdkImage(path, readDescriptorFile(file), opener);
  } catch (error) {
    opener.closeAll();
    throw error;
  }
}

function hasMagic(header: Buffer, magic: number): boolean {
  return header.length >= 4 && header.readUInt32LE(0) === magic;
}

function isExtentFile(header: Buffer): boolean {
  if (hasMagic(header, SPARSE_MAGIC) || hasMagic(header, COWD_MAGIC)) return true;
  return header.length >= 8 && header.readBigUInt64LE(0) === SESPARSE_MAGIC;
}

function readDescriptorFile(file: HostFile): VmdkDescriptor {
  if (file.size > MAX_DESCRIPTOR_SIZE) {
    const what = `VMDK descriptor of ${file.size} bytes is above the limit of 1 MiB`;
    throw new DiskError('damaged', `${file.path}: ${what}`);
  }
  const bytes = Buffer.alloc(file.size);
  file.readExact(bytes, 0, file.size, 0);
  return parseDescriptor(bytes, file.path);
}

/** One file with header, descriptor and grains; or (capacity 0) a descriptor in binary clothes. */
function openMonolithic(file: HostFile, opener: ExtentOpener): VmdkImage {
  const header = readSparseHeader(file);
  const bytes = readEmbeddedDescriptor(file, header);
  if (bytes === undefined) {
    throw new DiskError(
      'not-supported',
      `${file.path} is an extent of a VMDK, without its descriptor`,
      { hint: 'give the .vmdk text file that names it' },
    );
  }
  const descriptor = parseDescriptor(bytes, file.path);
  if (header.capacity === 0n) return new VmdkImage(file.path, descriptor, opener);
  const [line] = descriptor.extents;
  if (descriptor.extents.length !== 1 || line?.kind !== 'SPARSE') {
    const what = 'the embedded VMDK descriptor names other extents than this file';
    throw new DiskError('damaged', `${file.path}: ${what}`);
  }
  // The line's file name is not looked at: the file may have been renamed since.
  const geometry = sparseGeometry(file, header);
  const stated = line.sectors * SECTOR_SIZE;
  if (stated > geometry.length) {
    const what = `VMDK descriptor says ${line.sectors} sectors, the header ${header.capacity}`;
    throw new DiskError('damaged', `${file.path}: ${what}`);
  }
  // The header's capacity should be a multiple of the grain size by the specification, and some
  // writers round it up (DiscUtils): then the descriptor alone tells the disk's size.
  const isRounded = alignUp(stated, geometry.grainSize) === geometry.length;
  return new VmdkImage(file.path, descriptor, opener, [
    new SparseExtent(file, geometry, isRounded ? stated : geometry.length),
  ]);
}

/**
 * INVARIANT: extent `n` covers the disk from `#starts[n]` to `#starts[n + 1]`, and `#starts`
 * ascends.
 */
class VmdkImage implements DiskImage {
  readonly format = 'vmdk';
  readonly path: string;
  readonly files: readonly string[];
  readonly virtualSize: number;
  readonly complete: boolean;
  readonly parent: ParentReference | undefined;
  readonly #descriptor: VmdkDescriptor;
  readonly #extents: readonly VmdkExtent[];
  /** Disk offset at which each extent begins, and the disk's end. */
  readonly #starts: readonly number[];
  readonly #opener: ExtentOpener;
  /** The extent that answered last: most reads stay in it. */
  #current = 0;

  constructor(
    path: string,
    descriptor: VmdkDescriptor,
    opener: ExtentOpener,
    extents: readonly VmdkExtent[] = descriptor.extents.map((line) => opener.open(line)),
  ) {
    this.path = path;
    this.#descriptor = descriptor;
    this.#opener = opener;
    this.#extents = extents.filter((extent) => extent.length > 0);
    const starts = [0];
    for (const extent of this.#extents) starts.push(starts.at(-1)! + extent.length);
    this.#starts = starts;
    this.virtualSize = starts.at(-1)!;
    this.files = opener.paths;
    this.complete = this.#extents.every((extent) => extent.complete);
    this.parent = parentOf(descriptor);
  }

  info(): ImageInfo {
    return infoOf(this, {
      format: 'vmdk',
      subformat: this.#descriptor.createType,
      virtualSize: this.virtualSize,
      unitSize: Math.max(0, ...this.#extents.map((extent) => extent.grainSize)),
      logicalSectorSize: SECTOR_SIZE,
      identity: identityOf(this.#descriptor),
      notes: [...new Set(this.#extents.flatMap((extent) => extent.notes))],
    });
  }

  extentAt(offset: number, length: number, out: Extent): void {
    const index = this.#indexOf(offset);
    const start = this.#starts[index]!;
    const end = Math.min(offset + length, this.#starts[index + 1]!);
    this.#extents[index]!.extentAt(offset - start, end - offset, out);
  }

  readAt(target: Buffer, targetOffset: number, offset: number, length: number): void {
    let done = 0;
    while (done < length) {
      const at = offset + done;
      const index = this.#indexOf(at);
      const count = Math.min(this.#starts[index + 1]! - at, length - done);
      this.#extents[index]!.readAt(target, targetOffset + done, at - this.#starts[index]!, count);
      done += count;
    }
  }

  locate(offset: number): ExtentLocation | undefined {
    const index = this.#indexOf(offset);
    return this.#extents[index]!.locate(offset - this.#starts[index]!);
  }

  close(): void {
    this.#opener.closeAll();
  }

  #indexOf(offset: number): number {
    const starts = this.#starts;
    if (offset >= starts[this.#current]! && offset < starts[this.#current + 1]!) {
      return this.#current;
    }
    let low = 0;
    let high = this.#extents.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (starts[middle]! <= offset) low = middle;
      else high = middle - 1;
    }
    this.#current = low;
    return low;
  }
}
