/** Writes qcow2 images, version 3: plain or compressed, alone or on a backing file. */
import { DiskError } from '../../common/errors.js';
import { alignDown, alignUp, divCeil, SECTOR_SIZE } from '../../common/units.js';
import type { OutputFile } from '../../storage/output-files.js';
import type { ImageWriter, ImageWriting, ParentLink, WriteOptions } from '../image-writer.js';
import { hasProtocol } from '../sibling-path.js';
import { ClusterDeflater } from './cluster-compression.js';
import {
  COMPRESSED_HIGH,
  COPIED_HIGH,
  ENTRY_SIZE,
  EXTENSION,
  EXTENSION_ALIGNMENT,
  EXTENSION_BACKING_FORMAT,
  EXTENSION_END,
  HEADER_V2,
  HEADER_V3,
  MAX_BACKING_NAME,
  QCOW2_MAGIC,
  WRITTEN_CLUSTER_BITS,
  WRITTEN_CLUSTER_SIZE,
  WRITTEN_REFCOUNT_ORDER,
  ZERO_LOW,
} from './qcow2-layout.js';
import { RefcountWriter } from './refcount-writer.js';

const PLAIN = 'plain';
const COMPRESSED = 'compressed';
const L2_ENTRIES = WRITTEN_CLUSTER_SIZE / ENTRY_SIZE;
/** Lowest bit of the sector count of a compressed entry, in its upper half. */
const SECTOR_SHIFT = 38 - WRITTEN_CLUSTER_BITS;
/** What QEMU calls formats that are called otherwise here. */
const QEMU_NAMES: Readonly<Record<string, string>> = { vhd: 'vpc' };

export const qcow2Writing: ImageWriting = {
  subformats: [PLAIN, COMPRESSED],
  differencing: [PLAIN, COMPRESSED],
  create: (outputs, options) =>
    new Qcow2Writer(outputs.create(outputs.path), options, backingOf(options.parent)),
};

interface Backing {
  readonly name: Buffer;
  readonly format: Buffer;
}

/**
 * INVARIANT: calls ascend, so one L2 table is filled at a time, and goes to the file when the next
 * one is begun.
 */
class Qcow2Writer implements ImageWriter {
  readonly granularity = WRITTEN_CLUSTER_SIZE;
  readonly #file: OutputFile;
  readonly #options: WriteOptions;
  readonly #backing: Backing | undefined;
  readonly #clusters: RefcountWriter;
  readonly #deflater: ClusterDeflater | undefined;
  readonly #l1: Buffer;
  readonly #l1Offset: number;
  readonly #tableOffset: number;
  readonly #tableClusters: number;
  readonly #l2 = Buffer.alloc(WRITTEN_CLUSTER_SIZE);
  /** Which L1 entry `#l2` belongs to; -1 for none. */
  #l1Index = -1;
  /** Where the next compressed cluster goes: in the newest cluster, or at its end. */
  #packedEnd = 0;

  constructor(file: OutputFile, options: WriteOptions, backing: Backing | undefined) {
    this.#file = file;
    this.#options = options;
    this.#backing = backing;
    this.#clusters = new RefcountWriter(file);
    this.#deflater = options.subformat === COMPRESSED ? new ClusterDeflater() : undefined;
    const diskClusters = divCeil(options.virtualSize, WRITTEN_CLUSTER_SIZE);
    const l2Tables = divCeil(diskClusters, L2_ENTRIES);
    this.#l1 = Buffer.alloc(l2Tables * ENTRY_SIZE);
    const l1Clusters = divCeil(this.#l1.length, WRITTEN_CLUSTER_SIZE);
    // A thousandth is more than the blocks of counts and the header take.
    const most = Math.ceil((diskClusters + l2Tables + l1Clusters) * 1.001) + 64;
    this.#tableClusters = RefcountWriter.tableClusters(most);
    this.#clusters.take();
    this.#l1Offset = this.#take(l1Clusters);
    this.#tableOffset = this.#take(this.#tableClusters);
  }

  write(
    offset: number,
    source: Buffer,
    sourceOffset: number,
    length: number,
  ): Promise<void> | undefined {
    if (this.#deflater !== undefined) {
      const bytes = source.subarray(sourceOffset, sourceOffset + length);
      return this.#writeCompressed(this.#deflater, offset, bytes);
    }
    let done = 0;
    while (done < length) {
      this.#enter(offset + done);
      const place = this.#clusters.end;
      let run = 0;
      while (done + run < length && tableOf(offset + done + run) === this.#l1Index) {
        // A block of counts may have come in between.
        if (this.#clusters.end !== place + run) break;
        this.#setEntry(offset + done + run, COPIED_HIGH, this.#clusters.take());
        run += WRITTEN_CLUSTER_SIZE;
      }
      run = Math.min(run, length - done);
      this.#file.write(source, sourceOffset + done, run, place);
      done += run;
    }
    return undefined;
  }

  zero(offset: number, length: number): void {
    for (let done = 0; done < length; done += WRITTEN_CLUSTER_SIZE) {
      this.#enter(offset + done);
      this.#setEntry(offset + done, 0, ZERO_LOW);
    }
  }

  finish(): void {
    this.#deflater?.close();
    this.#flushL2();
    this.#clusters.finish(this.#tableOffset);
    this.#file.write(this.#l1, 0, this.#l1.length, this.#l1Offset);
    const header = this.#encodeHeader();
    this.#file.write(header, 0, header.length, 0);
    this.#file.truncate(this.#clusters.end);
  }

  #take(count: number): number {
    const offset = this.#clusters.take();
    for (let more = 1; more < count; more += 1) this.#clusters.take();
    return offset;
  }

  /** Compresses all clusters of the range at once, then writes them in order. */
  async #writeCompressed(deflater: ClusterDeflater, offset: number, source: Buffer): Promise<void> {
    const packed = await deflater.deflate(source);
    for (const [index, bytes] of packed.entries()) {
      const done = index * WRITTEN_CLUSTER_SIZE;
      this.#enter(offset + done);
      if (bytes === undefined) {
        const place = this.#clusters.take();
        const length = Math.min(WRITTEN_CLUSTER_SIZE, source.length - done);
        this.#file.write(source, done, length, place);
        this.#setEntry(offset + done, COPIED_HIGH, place);
      } else {
        this.#pack(offset + done, bytes);
      }
    }
  }

  /** Puts a compressed cluster directly behind the last one where that goes on to be possible. */
  #pack(offset: number, bytes: Buffer): void {
    const clusters = this.#clusters;
    const inside = this.#packedEnd % WRITTEN_CLUSTER_SIZE;
    const newest = clusters.end - WRITTEN_CLUSTER_SIZE;
    let place: number;
    if (inside !== 0 && alignDown(this.#packedEnd, WRITTEN_CLUSTER_SIZE) === newest) {
      place = this.#packedEnd;
      clusters.addReference(newest);
      if (inside + bytes.length > WRITTEN_CLUSTER_SIZE) clusters.take();
    } else {
      place = clusters.take();
    }
    this.#file.write(bytes, 0, bytes.length, place);
    this.#packedEnd = place + bytes.length;
    const sectors = sectorOf(this.#packedEnd - 1) - sectorOf(place);
    this.#setEntry(offset, COMPRESSED_HIGH + sectors * 2 ** SECTOR_SHIFT, place);
  }
  /** Makes the L2 table of this byte of the disk the one that is filled. */
  #enter(offset: number): void {
    const index = tableOf(offset);
    if (index === this.#l1Index) return;
    this.#flushL2();
    this.#l1Index = index;
  }

  #flushL2(): void {
    if (this.#l1Index < 0) return;
    const place = this.#clusters.take();
    this.#file.write(this.#l2, 0, this.#l2.length, place);
    setWords(this.#l1, this.#l1Index, COPIED_HIGH + Math.floor(place / 2 ** 32), place % 2 ** 32);
    this.#l2.fill(0);
  }

  /** @param flags added to the upper half of `value`. */
  #setEntry(offset: number, flags: number, value: number): void {
    const entry = Math.floor(offset / WRITTEN_CLUSTER_SIZE) % L2_ENTRIES;
    setWords(this.#l2, entry, flags + Math.floor(value / 2 ** 32), value % 2 ** 32);
  }

  /** Header, extensions, backing file name: all in the first cluster. */
  #encodeHeader(): Buffer {
    const backing = this.#backing;
    const headerLength = HEADER_V2.size + HEADER_V3.size;
    const extensions = encodeExtensions(backing);
    const v2 = HEADER_V2.encode({
      magic: QCOW2_MAGIC,
      version: 3,
      backingFileOffset: backing === undefined ? 0n : BigInt(headerLength + extensions.length),
      backingFileSize: backing?.name.length ?? 0,
      clusterBits: WRITTEN_CLUSTER_BITS,
      size: BigInt(this.#options.virtualSize),
      l1Size: this.#l1.length / ENTRY_SIZE,
      l1TableOffset: BigInt(this.#l1Offset),
      refcountTableOffset: BigInt(this.#tableOffset),
      refcountTableClusters: this.#tableClusters,
    });
    const v3 = HEADER_V3.encode({ refcountOrder: WRITTEN_REFCOUNT_ORDER, headerLength });
    return Buffer.concat([v2, v3, extensions, backing?.name ?? Buffer.alloc(0)]);
  }
}

/** Which L1 entry stands for this byte of the disk. */
function tableOf(offset: number): number {
  return Math.floor(offset / (L2_ENTRIES * WRITTEN_CLUSTER_SIZE));
}

function sectorOf(offset: number): number {
  return Math.floor(offset / SECTOR_SIZE);
}

/** A table entry, big endian. */
function setWords(table: Buffer, entry: number, high: number, low: number): void {
  table.writeUInt32BE(high, entry * ENTRY_SIZE);
  table.writeUInt32BE(low, entry * ENTRY_SIZE + 4);
}

function encodeExtensions(backing: Backing | undefined): Buffer {
  const end = EXTENSION.encode({ type: EXTENSION_END, length: 0 });
  if (backing === undefined) return end;
  const { format } = backing;
  const head = EXTENSION.encode({ type: EXTENSION_BACKING_FORMAT, length: format.length });
  const padding = Buffer.alloc(alignUp(format.length, EXTENSION_ALIGNMENT) - format.length);
  return Buffer.concat([head, format, padding, end]);
}

function backingOf(parent: ParentLink | undefined): Backing | undefined {
  if (parent === undefined) return undefined;
  // QEMU takes what stands before a colon for a protocol.
  const name = Buffer.from(hasProtocol(parent.name) ? `./${parent.name}` : parent.name);
  if (name.length > MAX_BACKING_NAME) {
    throw new DiskError(
      'not-supported',
      `qcow2 cannot name the parent ${parent.image.path}: at most ${MAX_BACKING_NAME} bytes`,
      { hint: 'put the new image nearer to its parent, so that the way there is shorter' },
    );
  }
  const { format } = parent.image;
  return { name, format: Buffer.from(QEMU_NAMES[format] ?? format) };
}
