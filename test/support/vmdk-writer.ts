/**
 * Writes VMDK files for tests from a model, straight from the format notes: an independent
 * counterpart of the readers.
 */
import { writeFileSync } from 'node:fs';
import { deflateSync } from 'node:zlib';
import type { DiskModel } from './disk-model.js';

const SECTOR = 512;

export interface SparseOptions {
  readonly entriesPerTable?: number;
  readonly version?: number;
  /** Entry 1 for zero units; else they must not occur. */
  readonly zeroedGrains?: boolean;
  readonly descriptor?: string;
  /** Sectors that the header states; default the model's. */
  readonly capacity?: number;
  /** Compressed grains with markers; `end`: the directory at the end and a footer. */
  readonly stream?: 'start' | 'end';
}

/** A growing file of whole sectors. */
class SectorFile {
  readonly #parts: Buffer[] = [];
  #sectors = 0;

  get next(): number {
    return this.#sectors;
  }

  /** Appends, padded to whole sectors; answers the first. */
  append(bytes: Buffer): number {
    const start = this.#sectors;
    const padding = (SECTOR - (bytes.length % SECTOR)) % SECTOR;
    this.#parts.push(bytes, Buffer.alloc(padding, 0xbd));
    this.#sectors += (bytes.length + padding) / SECTOR;
    return start;
  }

  toBuffer(): Buffer {
    return Buffer.concat(this.#parts);
  }
}

export interface DescriptorOptions {
  readonly createType: string;
  readonly cid?: string;
  readonly parentCid?: string;
  readonly parentName?: string;
  readonly extents: readonly string[];
  readonly encoding?: string;
  /** More of the disk data base, names without `ddb.`. */
  readonly database?: Readonly<Record<string, string>>;
}

export function descriptorText(options: DescriptorOptions): string {
  const { createType, cid = '1234abcd', parentCid = 'ffffffff', parentName, extents } = options;
  return [
    '# Disk DescriptorFile',
    'version=1',
    `encoding="${options.encoding ?? 'UTF-8'}"`,
    `CID=${cid}`,
    `parentCID=${parentCid}`,
    'isNativeSnapshot="no"',
    `createType="${createType}"`,
    ...(parentName === undefined ? [] : [`parentFileNameHint="${parentName}"`]),
    '',
    '# Extent description',
    ...extents,
    '',
    '# The Disk Data Base',
    '#DDB',
    'ddb.adapterType = "lsilogic"',
    'ddb.virtualHWVersion = "14"',
    ...Object.entries(options.database ?? {}).map(([key, value]) => `ddb.${key}="${value}"`),
    '',
  ].join('\n');
}

function grainBytes(model: DiskModel, grain: number): Buffer {
  const bytes = Buffer.alloc(model.unitSize);
  model.content.copy(bytes, 0, grain * model.unitSize, (grain + 1) * model.unitSize);
  return bytes;
}

function words(values: readonly number[], count = values.length): Buffer {
  const bytes = Buffer.alloc(count * 4);
  for (const [index, value] of values.entries()) bytes.writeUInt32LE(value, index * 4);
  return bytes;
}

function marker(value: number, size: number, type: number): Buffer {
  const bytes = Buffer.alloc(SECTOR);
  bytes.writeBigUInt64LE(BigInt(value), 0);
  bytes.writeUInt32LE(size, 8);
  bytes.writeUInt32LE(type, 12);
  return bytes;
}

/** A hosted sparse extent; grains lie in reverse order, so that place and number differ. */
export function buildSparse(model: DiskModel, options: SparseOptions = {}): Buffer {
  const { entriesPerTable = 512, version = 1, descriptor, stream } = options;
  const grainSectors = model.unitSize / SECTOR;
  const capacity = options.capacity ?? Math.ceil(model.size / SECTOR);
  const tableCount = Math.ceil(capacity / grainSectors / entriesPerTable);
  const file = new SectorFile();
  const header = Buffer.alloc(SECTOR);
  file.append(header);
  const text = descriptor === undefined ? undefined : Buffer.alloc(20 * SECTOR);
  text?.write(descriptor ?? '', 'utf8');
  const descriptorAt = text === undefined ? 0 : file.append(text);
  const directory = Buffer.alloc(tableCount * 4);
  const directoryFirst = stream === 'end' ? 0 : file.append(directory);
  const gap = 128 - (file.next % 128);
  file.append(Buffer.alloc(gap * SECTOR, 0xcd));
  const overhead = file.next;
  const entries = appendGrains(file, model, stream !== undefined);
  const tables: number[] = [];
  for (let table = 0; table < tableCount; table += 1) {
    const part = entries.slice(table * entriesPerTable, (table + 1) * entriesPerTable);
    if (part.every((entry) => entry === 0)) {
      tables.push(0);
      continue;
    }
    if (stream !== undefined) file.append(marker(Math.ceil(entriesPerTable / 128), 0, 1));
    tables.push(file.append(words(part, entriesPerTable)));
  }
  if (stream === 'end') file.append(marker(1, 0, 2));
  const directoryAt = stream === 'end' ? file.append(words(tables)) : directoryFirst;
  const fill = (target: Buffer, directoryField: bigint) => {
    target.write('KDMV', 0, 'latin1');
    target.writeUInt32LE(version, 4);
    const flags = 3 | (options.zeroedGrains === true ? 4 : 0) | (stream ? 0x30000 : 0);
    target.writeUInt32LE(flags, 8);
    target.writeBigUInt64LE(BigInt(capacity), 12);
    target.writeBigUInt64LE(BigInt(grainSectors), 20);
    target.writeBigUInt64LE(BigInt(descriptorAt), 28);
    target.writeBigUInt64LE(BigInt(text === undefined ? 0 : 20), 36);
    target.writeUInt32LE(entriesPerTable, 44);
    target.writeBigUInt64LE(0n, 48);
    target.writeBigUInt64LE(directoryField, 56);
    target.writeBigUInt64LE(BigInt(overhead), 64);
    target.write('\n \r\n', 73, 'latin1');
    target.writeUInt16LE(stream ? 1 : 0, 77);
  };
  if (stream === 'end') {
    const footer = Buffer.alloc(SECTOR);
    fill(footer, BigInt(directoryAt));
    file.append(marker(1, 0, 3));
    file.append(footer);
    file.append(marker(0, 0, 0));
  }
  const bytes = file.toBuffer();
  fill(bytes, stream === 'end' ? 0xffffffffffffffffn : BigInt(directoryAt));
  if (stream !== 'end') words(tables).copy(bytes, directoryFirst * SECTOR);
  return bytes;
}

function appendGrains(file: SectorFile, model: DiskModel, packed: boolean): number[] {
  const entries: number[] = model.states.map((state) => (state === 'zero' ? 1 : 0));
  const data = [...model.states.keys()].filter((grain) => model.states[grain] === 'data');
  // Streams are written in order; elsewhere any order is right.
  for (const grain of packed ? data : data.reverse()) {
    const bytes = grainBytes(model, grain);
    if (!packed) {
      entries[grain] = file.append(bytes);
      continue;
    }
    const deflated = deflateSync(bytes);
    const head = Buffer.alloc(12);
    head.writeBigUInt64LE(BigInt((grain * model.unitSize) / SECTOR), 0);
    head.writeUInt32LE(deflated.length, 8);
    entries[grain] = file.append(Buffer.concat([head, deflated]));
  }
  return entries;
}

/** One file with descriptor and data. */
export function writeMonolithic(
  path: string,
  model: DiskModel,
  options: Partial<DescriptorOptions> & SparseOptions = {},
): void {
  const createType =
    options.createType ?? (options.stream ? 'streamOptimized' : 'monolithicSparse');
  const extents = [`RW ${Math.ceil(model.size / SECTOR)} SPARSE "another name.vmdk"`];
  const descriptor = descriptorText({ ...options, createType, extents });
  writeFileSync(path, buildSparse(model, { ...options, descriptor }));
}

/** An ESXi (COWD) sparse extent: tables of 4096 entries, everything in 32 bits. */
export function buildCowd(model: DiskModel): Buffer {
  const grainSectors = model.unitSize / SECTOR;
  const capacity = Math.ceil(model.size / SECTOR);
  const tableCount = Math.ceil(model.states.length / 4096);
  const file = new SectorFile();
  file.append(Buffer.alloc(4 * SECTOR));
  const directoryAt = file.append(Buffer.alloc(tableCount * 4));
  const entries = appendGrains(file, model, false);
  const tables = Array.from({ length: tableCount }, (_, table) => {
    const part = entries.slice(table * 4096, (table + 1) * 4096);
    return part.every((entry) => entry === 0) ? 0 : file.append(words(part, 4096));
  });
  const bytes = file.toBuffer();
  bytes.write('COWD', 0, 'latin1');
  const fields = [1, 3, capacity, grainSectors, directoryAt, tableCount, file.next];
  words(fields).copy(bytes, 4);
  words(tables).copy(bytes, directoryAt * SECTOR);
  return bytes;
}

/**
 * An seSparse extent; the model's unit must be 4096. Grain numbers start past 4096 to use both
 * parts of an entry.
 */
export function buildSeSparse(model: DiskModel): Buffer {
  const capacity = Math.ceil(model.size / SECTOR);
  const tableCount = Math.ceil(model.states.length / 4096);
  const [directoryAt, tablesAt] = [3, 4];
  const grainsAt = tablesAt + tableCount * 64;
  const data = [...model.states.keys()].filter((grain) => model.states[grain] === 'data');
  const skipped = data.length > 100 ? 0 : 4090;
  const bytes = Buffer.alloc(grainsAt * SECTOR + (skipped + data.length) * 4096);
  const u64 = (at: number, value: bigint) => bytes.writeBigUInt64LE(value, at);
  const header = [0xcafebaben, 0x200000001n, BigInt(capacity), 8n, 64n, 0n, 0n, 0n, 0n, 0n];
  const areas = [
    1,
    1,
    2,
    1,
    0,
    0,
    directoryAt,
    1,
    tablesAt,
    tableCount * 64,
    0,
    0,
    0,
    0,
    grainsAt,
    1,
  ];
  for (const [index, value] of [...header, ...areas.map(BigInt)].entries()) u64(index * 8, value);
  u64(SECTOR, 0xcafecafen);
  for (let table = 0; table < tableCount; table += 1) {
    // Tables lie in reverse order.
    const place = tableCount - 1 - table;
    const states = model.states.slice(table * 4096, (table + 1) * 4096);
    if (states.every((state) => state === 'unallocated')) continue;
    u64(directoryAt * SECTOR + table * 8, (0x10000000n << 32n) | BigInt(place));
    for (const [index, state] of states.entries()) {
      const grain = table * 4096 + index;
      const at = tablesAt * SECTOR + place * 32768 + index * 8;
      if (state === 'zero') u64(at, grain % 2 === 0 ? 1n << 60n : 2n << 60n);
      if (state !== 'data') continue;
      const number = BigInt(skipped + data.length - 1 - data.indexOf(grain));
      u64(at, (3n << 60n) | ((number & 0xfffn) << 48n) | (number >> 12n));
      grainBytes(model, grain).copy(bytes, grainsAt * SECTOR + Number(number) * 4096);
    }
  }
  return bytes;
}
