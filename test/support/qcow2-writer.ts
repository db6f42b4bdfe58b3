/** Writes qcow2 images byte by byte from models, with every feature and odd layouts. */
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { deflateRawSync } from 'node:zlib';
import {
  COMPRESSED_HIGH,
  COPIED_HIGH,
  ENTRY_SIZE,
  EXTENDED_ENTRY_SIZE,
  EXTENSION,
  EXTENSION_BACKING_FORMAT,
  EXTENSION_DATA_FILE,
  EXTENSION_FEATURE_NAMES,
  FEATURE_NAME_SIZE,
  HEADER_V2,
  HEADER_V3,
  QCOW2_MAGIC,
  SNAPSHOT_ENTRY,
  SNAPSHOT_EXTRA,
  SUBCLUSTERS,
} from '../../src/formats/qcow2/qcow2-layout.js';
import type { DiskModel } from './disk-model.js';
import { zstdFrame } from './qcow2-zstd-frame.js';

export interface Qcow2Plan {
  /** One state a cluster, or a subcluster with `extendedL2`. */
  readonly model: DiskModel;
  readonly clusterBits: number;
  readonly version?: 2 | 3;
  readonly extendedL2?: boolean;
  readonly compression?: 'deflate' | 'zstd';
  /** Which clusters of nothing but data are stored compressed. */
  readonly compressed?: (cluster: number) => boolean;
  /** Zero clusters keep a host cluster, filled with rubbish. */
  readonly zeroAllocated?: boolean;
  readonly backing?: { readonly name: string; readonly format?: string };
  /** Name as written in the image, and the path to write the data to. */
  readonly dataFile?: { readonly name: string; readonly path: string };
  /** Host cluster number of the nth data cluster, instead of the next free one. */
  readonly place?: (nth: number) => number;
  /** Host offset from which on compressed clusters go, instead of into free clusters. */
  readonly packFrom?: number;
  readonly snapshots?: readonly { readonly name: string; readonly model: DiskModel }[];
  /** Names for the feature name table: bit -> name. */
  readonly featureNames?: Readonly<Record<number, string>>;
  readonly incompatible?: bigint;
  readonly compatible?: bigint;
  readonly autoclear?: bigint;
}

/** Where things went, so that a test can damage them. Offsets in bytes. */
export interface Qcow2Layout {
  readonly l1Offset: number;
  /** L1 index -> L2 table. */
  readonly l2Offsets: ReadonlyMap<number, number>;
  readonly refcountTableOffset: number;
  readonly refcountBlockOffsets: readonly number[];
  readonly snapshotTableOffset: number;
  /** Guest cluster -> host offset (of the compressed bytes, for a compressed one). */
  readonly dataOffsets: ReadonlyMap<number, number>;
  readonly fileSize: number;
}

const RUBBISH = 0xaa;
const COMPATIBLE_DEFAULT = 0n;

export function writeQcow2(path: string, plan: Qcow2Plan): Qcow2Layout {
  const writer = new Qcow2Writer(path, plan);
  try {
    return writer.run();
  } finally {
    writer.close();
  }
}

class Qcow2Writer {
  readonly #plan: Qcow2Plan;
  readonly #clusterSize: number;
  readonly #fd: number;
  readonly #dataFd: number;
  readonly #refcounts = new Map<number, number>();
  readonly #l2Offsets = new Map<number, number>();
  readonly #dataOffsets = new Map<number, number>();
  #nextCluster = 0;
  #placed = 0;
  #end = 0;
  /** Where the next compressed cluster goes, and where its host cluster ends. */
  #packAt = 0;
  #packEnd = 0;

  constructor(path: string, plan: Qcow2Plan) {
    this.#plan = plan;
    this.#packAt = plan.packFrom ?? 0;
    this.#packEnd = plan.packFrom === undefined ? 0 : Number.POSITIVE_INFINITY;
    this.#clusterSize = 2 ** plan.clusterBits;
    this.#fd = openSync(path, 'w+');
    this.#dataFd = plan.dataFile === undefined ? this.#fd : openSync(plan.dataFile.path, 'w+');
  }

  close(): void {
    closeSync(this.#fd);
    if (this.#dataFd !== this.#fd) closeSync(this.#dataFd);
  }

  run(): Qcow2Layout {
    const { model, snapshots = [] } = this.#plan;
    this.#allocate(1);
    const refcountTableOffset = this.#allocate(1);
    const active = this.#writeDisk(model, true);
    const tables = snapshots.map((one) => this.#writeDisk(one.model, false));
    const snapshotTableOffset = this.#writeSnapshots(tables);
    const refcountBlockOffsets = this.#writeRefcounts(refcountTableOffset);
    this.#writeHeader({ ...active, refcountTableOffset, snapshotTableOffset });
    ftruncateSync(this.#fd, this.#end);
    if (this.#dataFd !== this.#fd) ftruncateSync(this.#dataFd, model.size);
    return {
      l1Offset: active.l1Offset,
      l2Offsets: this.#l2Offsets,
      refcountTableOffset,
      refcountBlockOffsets,
      snapshotTableOffset,
      dataOffsets: this.#dataOffsets,
      fileSize: this.#end,
    };
  }

  #allocate(clusters: number): number {
    return this.#claim(this.#reserve(clusters) / this.#clusterSize, clusters);
  }

  /** Like `#allocate`, but nothing refers to the clusters yet. */
  #reserve(clusters: number): number {
    const first = this.#nextCluster;
    this.#nextCluster += clusters;
    this.#end = Math.max(this.#end, this.#nextCluster * this.#clusterSize);
    return first * this.#clusterSize;
  }

  #claim(first: number, clusters: number): number {
    for (let cluster = first; cluster < first + clusters; cluster += 1) {
      this.#refcounts.set(cluster, (this.#refcounts.get(cluster) ?? 0) + 1);
    }
    this.#end = Math.max(this.#end, (first + clusters) * this.#clusterSize);
    return first * this.#clusterSize;
  }

  #write(bytes: Buffer, offset: number): void {
    writeSync(this.#fd, bytes, 0, bytes.length, offset);
  }

  /** L1 and L2 tables and the data of one state of the disk. */
  #writeDisk(model: DiskModel, active: boolean): { l1Offset: number; l1Size: number } {
    const entrySize = this.#plan.extendedL2 === true ? EXTENDED_ENTRY_SIZE : ENTRY_SIZE;
    const perTable = this.#clusterSize / entrySize;
    const clusters = Math.ceil(model.size / this.#clusterSize);
    const l1Size = Math.max(1, Math.ceil(clusters / perTable));
    const l1 = Buffer.alloc(l1Size * ENTRY_SIZE);
    const l1Offset = this.#allocate(Math.ceil(l1.length / this.#clusterSize));
    for (let index = 0; index < l1Size; index += 1) {
      const table = this.#buildL2(model, index, perTable, entrySize);
      if (table === undefined) continue;
      const offset = this.#allocate(1);
      this.#write(table, offset);
      writeEntry(l1, index * ENTRY_SIZE, offset, COPIED_HIGH);
      if (active) this.#l2Offsets.set(index, offset);
    }
    this.#write(l1, l1Offset);
    return { l1Offset, l1Size };
  }

  /** An L2 table; undefined when nothing under it is allocated. */
  #buildL2(
    model: DiskModel,
    index: number,
    perTable: number,
    entrySize: number,
  ): Buffer | undefined {
    const table = Buffer.alloc(this.#clusterSize);
    const clusters = Math.ceil(model.size / this.#clusterSize);
    const first = index * perTable;
    for (let cluster = first; cluster < Math.min(first + perTable, clusters); cluster += 1) {
      this.#writeCluster(model, cluster, table, (cluster - first) * entrySize);
    }
    return table.some((byte) => byte !== 0) ? table : undefined;
  }

  #writeCluster(model: DiskModel, cluster: number, table: Buffer, at: number): void {
    const size = this.#clusterSize;
    const perCluster = size / model.unitSize;
    const states = model.states.slice(cluster * perCluster, (cluster + 1) * perCluster);
    const content = Buffer.alloc(size, RUBBISH);
    for (const [unit, state] of states.entries()) {
      const start = cluster * size + unit * model.unitSize;
      if (state !== 'data') continue;
      content.fill(0, unit * model.unitSize, (unit + 1) * model.unitSize);
      model.content.copy(content, unit * model.unitSize, start, start + model.unitSize);
    }
    const hasData = states.includes('data');
    const packed = this.#plan.compressed?.(cluster) === true && states.every((s) => s === 'data');
    if (packed) {
      this.#writePacked(cluster, content, table, at);
      return;
    }
    const keep = this.#plan.zeroAllocated === true && states.includes('zero');
    if (hasData || keep) {
      const offset = this.#writeData(cluster, content);
      writeEntry(table, at, offset, COPIED_HIGH);
    }
    if (this.#plan.extendedL2 === true) writeBitmap(table, at + ENTRY_SIZE, states);
    else if (states[0] === 'zero') table[at + 7]! |= 1;
  }

  #writeData(cluster: number, content: Buffer): number {
    if (this.#plan.dataFile !== undefined) {
      const offset = cluster * this.#clusterSize;
      writeSync(this.#dataFd, content, 0, content.length, offset);
      this.#dataOffsets.set(cluster, offset);
      return offset;
    }
    const { place } = this.#plan;
    const offset = place === undefined ? this.#allocate(1) : this.#claim(place(this.#placed), 1);
    this.#placed += 1;
    this.#write(content, offset);
    this.#dataOffsets.set(cluster, offset);
    return offset;
  }

  /**
   * Compressed clusters lie behind each other without alignment, also across the border of host
   * clusters.
   */
  #writePacked(cluster: number, content: Buffer, table: Buffer, at: number): void {
    const packed =
      this.#plan.compression === 'zstd'
        ? zstdFrame(content)
        : deflateRawSync(content, { windowBits: 12 });
    if (this.#packAt + packed.length > this.#packEnd) {
      const clusters = Math.ceil(packed.length / this.#clusterSize);
      const fresh = this.#reserve(clusters);
      if (fresh !== this.#packEnd) this.#packAt = fresh;
      this.#packEnd = fresh + clusters * this.#clusterSize;
    }
    const offset = this.#packAt;
    this.#packAt += packed.length;
    this.#write(packed, offset);
    const lastByte = offset + packed.length - 1;
    const firstCluster = Math.floor(offset / this.#clusterSize);
    this.#claim(firstCluster, Math.floor(lastByte / this.#clusterSize) - firstCluster + 1);
    const sectors = Math.floor(lastByte / 512) - Math.floor(offset / 512);
    const shift = 38 - this.#plan.clusterBits;
    writeEntry(table, at, offset, COMPRESSED_HIGH + sectors * 2 ** shift);
    this.#dataOffsets.set(cluster, offset);
  }

  #writeSnapshots(tables: readonly { l1Offset: number; l1Size: number }[]): number {
    const { snapshots = [] } = this.#plan;
    if (snapshots.length === 0) return 0;
    const entries = snapshots.map(({ name, model }, index) => {
      const id = String(index + 1);
      const fixed = SNAPSHOT_ENTRY.encode({
        l1TableOffset: BigInt(tables[index]!.l1Offset),
        l1Size: tables[index]!.l1Size,
        idSize: id.length,
        nameSize: Buffer.byteLength(name),
        dateSeconds: 1_700_000_000 + index,
        extraDataSize: SNAPSHOT_EXTRA.size,
      });
      const extra = SNAPSHOT_EXTRA.encode({ diskSize: BigInt(model.size) });
      return padded(Buffer.concat([fixed, extra, Buffer.from(id + name)]));
    });
    const table = Buffer.concat(entries);
    const offset = this.#allocate(Math.ceil(table.length / this.#clusterSize));
    this.#write(table, offset);
    return offset;
  }

  /** 16-bit reference counts of everything claimed so far and of the blocks themselves. */
  #writeRefcounts(tableOffset: number): number[] {
    const perBlock = (this.#clusterSize * 8) / 16;
    const blocks = new Map<number, number>();
    for (let pass = 0; pass < 3; pass += 1) {
      for (const cluster of [...this.#refcounts.keys()]) {
        const block = Math.floor(cluster / perBlock);
        // A table of one cluster: places far out in a big file are left uncounted.
        if (block >= this.#clusterSize / ENTRY_SIZE || blocks.has(block)) continue;
        blocks.set(block, this.#allocate(1));
      }
    }
    const table = Buffer.alloc(this.#clusterSize);
    for (const [block, offset] of blocks) {
      const counts = Buffer.alloc(this.#clusterSize);
      for (let index = 0; index < perBlock; index += 1) {
        counts.writeUInt16BE(this.#refcounts.get(block * perBlock + index) ?? 0, index * 2);
      }
      this.#write(counts, offset);
      writeEntry(table, block * ENTRY_SIZE, offset, 0);
    }
    this.#write(table, tableOffset);
    return [...blocks.values()];
  }

  #writeHeader(places: {
    l1Offset: number;
    l1Size: number;
    refcountTableOffset: number;
    snapshotTableOffset: number;
  }): void {
    const plan = this.#plan;
    const version = plan.version ?? 3;
    const extensions = this.#extensions();
    const headerLength = version === 2 ? HEADER_V2.size : HEADER_V2.size + HEADER_V3.size + 8;
    const name = Buffer.from(plan.backing?.name ?? '');
    const nameOffset = headerLength + extensions.length;
    const first = HEADER_V2.encode({
      magic: QCOW2_MAGIC,
      version,
      backingFileOffset: name.length === 0 ? 0n : BigInt(nameOffset),
      backingFileSize: name.length,
      clusterBits: plan.clusterBits,
      size: BigInt(plan.model.size),
      l1Size: places.l1Size,
      l1TableOffset: BigInt(places.l1Offset),
      refcountTableOffset: BigInt(places.refcountTableOffset),
      refcountTableClusters: 1,
      snapshotCount: plan.snapshots?.length ?? 0,
      snapshotsOffset: BigInt(places.snapshotTableOffset),
    });
    const second = HEADER_V3.encode({
      incompatibleFeatures: this.#incompatible(),
      compatibleFeatures: plan.compatible ?? COMPATIBLE_DEFAULT,
      autoclearFeatures: plan.autoclear ?? 0n,
      refcountOrder: 4,
      headerLength,
    });
    const additional = Buffer.alloc(8);
    additional[0] = plan.compression === 'zstd' ? 1 : 0;
    const rest = version === 2 ? [] : [second, additional];
    this.#write(Buffer.concat([first, ...rest, extensions, name]), 0);
  }

  #incompatible(): bigint {
    const { dataFile, compression, extendedL2, incompatible = 0n } = this.#plan;
    let bits = incompatible;
    if (dataFile !== undefined) bits |= 1n << 2n;
    if (compression === 'zstd') bits |= 1n << 3n;
    if (extendedL2 === true) bits |= 1n << 4n;
    return bits;
  }

  #extensions(): Buffer {
    const { backing, dataFile, featureNames } = this.#plan;
    const parts: Buffer[] = [];
    if (backing?.format !== undefined) {
      parts.push(extension(EXTENSION_BACKING_FORMAT, Buffer.from(backing.format)));
    }
    if (dataFile !== undefined) {
      parts.push(extension(EXTENSION_DATA_FILE, Buffer.from(dataFile.name)));
    }
    if (featureNames !== undefined) {
      const names = Object.entries(featureNames).map(([bit, name]) => {
        const entry = Buffer.alloc(FEATURE_NAME_SIZE);
        entry[1] = Number(bit);
        entry.write(name, 2);
        return entry;
      });
      parts.push(extension(EXTENSION_FEATURE_NAMES, Buffer.concat(names)));
    }
    return Buffer.concat([...parts, extension(0, Buffer.alloc(0))]);
  }
}

function extension(type: number, data: Buffer): Buffer {
  return Buffer.concat([EXTENSION.encode({ type, length: data.length }), padded(data)]);
}

function padded(data: Buffer): Buffer {
  return Buffer.concat([data, Buffer.alloc((8 - (data.length % 8)) % 8)]);
}

/** `flags` go into the upper half. */
function writeEntry(table: Buffer, at: number, offset: number, flags: number): void {
  table.writeUInt32BE(flags + Math.floor(offset / 2 ** 32), at);
  table.writeUInt32BE(offset % 2 ** 32, at + 4);
}

function writeBitmap(table: Buffer, at: number, states: readonly string[]): void {
  for (let unit = 0; unit < SUBCLUSTERS; unit += 1) {
    const state = states[unit] ?? 'unallocated';
    const byte = 3 - Math.floor(unit / 8);
    if (state === 'zero') table[at + byte]! |= 1 << (unit % 8);
    if (state === 'data') table[at + 4 + byte]! |= 1 << (unit % 8);
  }
}
