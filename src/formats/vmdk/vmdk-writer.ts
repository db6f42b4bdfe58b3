/**
 * Writes VMDK images: one file or several, sparse, flat or streamed, and children of other VMDKs.
 */
import { basename, dirname, join } from 'node:path';
import { invariant } from '../../common/assert.js';
import { DiskError } from '../../common/errors.js';
import { GiB, MAX_DISK_SIZE, MiB, SECTOR_SIZE } from '../../common/units.js';
import type { OutputFile, OutputFiles } from '../../storage/output-files.js';
import type { ImageWriter, ImageWriting, ParentLink, WriteOptions } from '../image-writer.js';
import { checkParentFormat, NO_CHILD } from '../write-checks.js';
import { type ExtentLine, MAX_EXTENTS, NO_PARENT } from './descriptor.js';
import { descriptorText, isQuotable, type ParentEntry } from './descriptor-text.js';
import { type ExtentWriter, FlatExtentWriter } from './extent-writer.js';
import { WRITTEN_GRAIN_SIZE } from './grain-table-writer.js';
import { SparseExtentWriter } from './sparse-extent-writer.js';
import { StreamWriter } from './stream-writer.js';

/** As VMware splits: with its tables, such an extent stays a file of less than 2 GiB. */
export const SPLIT_SIZE = 2047 * MiB;
/** Room for an embedded descriptor, as VMware leaves it. */
const EMBEDDED_SIZE = 20 * SECTOR_SIZE;
/** Flat extents have no unit; this is the engine's and most file systems'. */
const FLAT_GRANULARITY = 4096;

interface Subformat {
  readonly kind: 'SPARSE' | 'FLAT';
  /** Whether descriptor and data are in one file. */
  readonly embedded?: true;
  readonly split?: true;
  readonly stream?: true;
}

const SUBFORMATS: Readonly<Record<string, Subformat>> = {
  monolithicSparse: { kind: 'SPARSE', embedded: true },
  monolithicFlat: { kind: 'FLAT' },
  streamOptimized: { kind: 'SPARSE', embedded: true, stream: true },
  twoGbMaxExtentSparse: { kind: 'SPARSE', split: true },
  twoGbMaxExtentFlat: { kind: 'FLAT', split: true },
};

export const vmdkWriting: ImageWriting = {
  subformats: Object.keys(SUBFORMATS),
  differencing: ['monolithicSparse', 'twoGbMaxExtentSparse'],
  create: createVmdk,
};

function createVmdk(outputs: OutputFiles, options: WriteOptions): ImageWriter {
  const { virtualSize, parent } = options;
  const subformat = SUBFORMATS[options.subformat];
  invariant(subformat !== undefined, `VMDK subformat ${options.subformat}`);
  invariant(
    parent === undefined || vmdkWriting.differencing.includes(options.subformat),
    `a VMDK of subformat ${options.subformat} with a parent`,
  );
  checkSize(outputs.path, options, subformat);
  if (parent !== undefined) checkParent(outputs.path, virtualSize, parent);
  const extents = extentLines(outputs.path, virtualSize, subformat);
  const descriptor = descriptorText(outputs.path, {
    createType: options.subformat,
    virtualSize,
    extents,
    ...(parent === undefined ? {} : { parent: parentEntry(parent) }),
  });
  const main = outputs.create(outputs.path);
  if (subformat.embedded === true) {
    const embedded = padded(outputs.path, descriptor);
    return new VmdkWriter(subformat, [sparseWriter(main, options, subformat, embedded)]);
  }
  main.write(descriptor, 0, descriptor.length, 0);
  const folder = dirname(outputs.path);
  const writers = extents.map(({ file = '', sectors }) => {
    const output = outputs.create(join(folder, file));
    const length = sectors * SECTOR_SIZE;
    if (subformat.kind === 'FLAT') return new FlatExtentWriter(output, length);
    return new SparseExtentWriter(output, { length, zeroedGrains: parent !== undefined });
  });
  return new VmdkWriter(subformat, writers);
}

function sparseWriter(
  file: OutputFile,
  { virtualSize: length, parent }: WriteOptions,
  { stream }: Subformat,
  descriptor: Buffer,
): ExtentWriter {
  if (stream === true) return new StreamWriter(file, { length, descriptor });
  return new SparseExtentWriter(file, {
    length,
    descriptor,
    zeroedGrains: parent !== undefined,
  });
}

/** Extents in the order of the disk; only the last may be shorter than the split. */
class VmdkWriter implements ImageWriter {
  readonly granularity: number;
  readonly #extents: readonly ExtentWriter[];
  readonly #extentSize: number;

  constructor(subformat: Subformat, extents: readonly ExtentWriter[]) {
    this.granularity = subformat.kind === 'FLAT' ? FLAT_GRANULARITY : WRITTEN_GRAIN_SIZE;
    this.#extentSize = subformat.split === true ? SPLIT_SIZE : MAX_DISK_SIZE;
    this.#extents = extents;
  }

  write(offset: number, source: Buffer, sourceOffset: number, length: number) {
    const index = Math.floor(offset / this.#extentSize);
    const inExtent = offset - index * this.#extentSize;
    return this.#extents[index]!.write(inExtent, source, sourceOffset, length);
  }

  zero(offset: number, length: number): void {
    const size = this.#extentSize;
    for (let done = 0; done < length; ) {
      const at = offset + done;
      const index = Math.floor(at / size);
      const count = Math.min((index + 1) * size - at, length - done);
      this.#extents[index]!.zero(at - index * size, count);
      done += count;
    }
  }

  finish(): void {
    for (const extent of this.#extents) extent.finish();
  }
}

function checkSize(path: string, options: WriteOptions, subformat: Subformat): void {
  const limit = subformat.split === true ? MAX_EXTENTS * SPLIT_SIZE : MAX_DISK_SIZE;
  if (options.virtualSize <= limit) return;
  const what = `a VMDK of subformat ${options.subformat} holds at most ${limit / GiB} GiB`;
  // In bytes: as rounded sizes the two can look the same.
  const size = `the disk is of ${options.virtualSize} bytes`;
  throw new DiskError('not-supported', `${path}: ${what}, ${size}`, {
    hint: 'choose --subformat monolithicSparse or monolithicFlat',
  });
}

function checkParent(path: string, virtualSize: number, { image }: ParentLink): void {
  checkParentFormat(path, 'vmdk', image);
  if (image.info().identity.cid === NO_PARENT) {
    const what = `has the CID ${NO_PARENT}, by which a child says that it has no parent`;
    throw new DiskError('not-supported', `${path}: its parent ${image.path} ${what}`, {
      hint: NO_CHILD,
    });
  }
  if (image.virtualSize === virtualSize) return;
  const sizes = `the disk has ${virtualSize} bytes, ${image.path} has ${image.virtualSize}`;
  throw new DiskError('not-supported', `${path}: a VMDK has the size of its parent: ${sizes}`, {
    hint: NO_CHILD,
  });
}

function parentEntry({ image, name }: ParentLink): ParentEntry {
  const { cid, uuid, 'modification-uuid': modificationUuid } = image.info().identity;
  invariant(cid !== undefined, 'an opened VMDK without CID');
  return { cid, name, uuid, modificationUuid };
}

function extentLines(path: string, virtualSize: number, subformat: Subformat): ExtentLine[] {
  const { kind, split, embedded } = subformat;
  const line = (length: number, file: string): ExtentLine => ({
    access: 'RW',
    sectors: length / SECTOR_SIZE,
    kind,
    file,
    offsetSectors: 0,
  });
  const name = basename(path);
  // Nobody looks at the name of the file that one is reading: any will do.
  if (embedded) return [line(virtualSize, isQuotable(name) ? name : 'disk.vmdk')];
  const stem = name.replace(/\.vmdk$/i, '');
  if (split !== true) return [line(virtualSize, `${stem}-flat.vmdk`)];
  const letter = kind === 'FLAT' ? 'f' : 's';
  return Array.from({ length: Math.ceil(virtualSize / SPLIT_SIZE) }, (_, index) => {
    const length = Math.min(SPLIT_SIZE, virtualSize - index * SPLIT_SIZE);
    const number = String(index + 1).padStart(3, '0');
    return line(length, `${stem}-${letter}${number}.vmdk`);
  });
}

/** The descriptor in the room that headers leave for one. */
function padded(path: string, descriptor: Buffer): Buffer {
  if (descriptor.length > EMBEDDED_SIZE) {
    const what = `a VMDK descriptor of ${descriptor.length} bytes is above ${EMBEDDED_SIZE}`;
    throw new DiskError('not-supported', `${path}: ${what}`, { hint: 'choose shorter names' });
  }
  const bytes = Buffer.alloc(EMBEDDED_SIZE);
  descriptor.copy(bytes);
  return bytes;
}
