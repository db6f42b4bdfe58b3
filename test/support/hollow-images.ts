/** Images that are next to nothing but tables, and those are holes: vast in memory, not on disk. */
import { closeSync, ftruncateSync, openSync, readSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { GiB, MiB, SECTOR_SIZE } from '../../src/common/units.js';
import { HEADER_V2, HEADER_V3, QCOW2_MAGIC } from '../../src/formats/qcow2/qcow2-layout.js';
import { HEADER_OFFSETS, LOG_SECTOR_SIZE } from '../../src/formats/vhdx/vhdx-layout.js';
import {
  SESPARSE_DIRECTORY_TYPE,
  SESPARSE_GRAIN_SECTORS,
  SESPARSE_HEADER,
  SESPARSE_MAGIC,
  SESPARSE_TABLE_SECTORS,
  SESPARSE_VERSION,
  SESPARSE_VOLATILE_HEADER,
  SESPARSE_VOLATILE_MAGIC,
} from '../../src/formats/vmdk/se-sparse-layout.js';
import { NEWLINE_TEST, SPARSE_HEADER, SPARSE_MAGIC } from '../../src/formats/vmdk/sparse-layout.js';
import { stampedModel } from './disk-model.js';
import { buildLogEntry } from './vhdx-log-writer.js';
import { LOG_GUID, seal, writeVhdx } from './vhdx-writer.js';
import { descriptorText } from './vmdk-writer.js';

export interface Qcow2Shape {
  readonly clusterBits: number;
  readonly l1Entries: number;
  /** How many of these lead to an L2 table, empty and each its own. */
  readonly l2Tables: number;
  readonly backing?: string;
}

/** A qcow2 that is next to nothing but tables: header, backing name, L1, holes as L2 tables. */
export function writeTables(path: string, shape: Qcow2Shape): void {
  const { clusterBits, l1Entries, l2Tables, backing = '' } = shape;
  const clusterSize = 2 ** clusterBits;
  const start = Math.ceil((3 * clusterSize + l1Entries * 8) / clusterSize) * clusterSize;
  const header = Buffer.concat([
    HEADER_V2.encode({
      magic: QCOW2_MAGIC,
      version: 3,
      clusterBits,
      size: BigInt(l1Entries * (clusterSize / 8) * clusterSize),
      l1Size: l1Entries,
      l1TableOffset: BigInt(3 * clusterSize),
      refcountTableOffset: BigInt(clusterSize),
      refcountTableClusters: 1,
      ...(backing === '' ? {} : { backingFileOffset: 200n, backingFileSize: backing.length }),
    }),
    HEADER_V3.encode({ refcountOrder: 4, headerLength: 104 }),
  ]);
  const l1 = Buffer.alloc(l2Tables * 8);
  for (let index = 0; index < l2Tables; index += 1) {
    l1.writeBigUInt64BE(BigInt(start + index * clusterSize) | (1n << 63n), index * 8);
  }
  const fd = openSync(path, 'w');
  ftruncateSync(fd, start + l1Entries * clusterSize);
  writeSync(fd, header, 0, header.length, 0);
  writeSync(fd, backing, 200);
  writeSync(fd, l1, 0, l1.length, 3 * clusterSize);
  closeSync(fd);
}

/** `depth` images on each other. @returns the top one. */
export function writeStack(folder: string, depth: number, shape: Qcow2Shape): string {
  for (let level = 0; level < depth; level += 1) {
    const backing = level === 0 ? {} : { backing: `${level - 1}.qcow2` };
    writeTables(join(folder, `${level}.qcow2`), { ...shape, ...backing });
  }
  return join(folder, `${depth - 1}.qcow2`);
}

const SPLIT_EXTENT = 64 * GiB;
const GRAIN_SECTORS = 128;
const TABLE_ENTRIES = 512;
const DIRECTORY_SECTOR = 21;

/**
 * A VMDK in `count` extents of 64 GiB, each with all tables that it can have. @returns its path.
 */
export function writeSplit(folder: string, count: number): string {
  const sectors = SPLIT_EXTENT / SECTOR_SIZE;
  const tables = sectors / GRAIN_SECTORS / TABLE_ENTRIES;
  const firstTable = DIRECTORY_SECTOR + Math.ceil((tables * 4) / SECTOR_SIZE);
  const tableSectors = (TABLE_ENTRIES * 4) / SECTOR_SIZE;
  const overhead = Math.ceil((firstTable + tables * tableSectors) / GRAIN_SECTORS) * GRAIN_SECTORS;
  const header = SPARSE_HEADER.encode({
    magic: SPARSE_MAGIC,
    version: 1,
    flags: 3,
    capacity: BigInt(sectors),
    grainSize: BigInt(GRAIN_SECTORS),
    entriesPerTable: TABLE_ENTRIES,
    directory: BigInt(DIRECTORY_SECTOR),
    overhead: BigInt(overhead),
    newlineTest: NEWLINE_TEST,
  });
  const directory = Buffer.alloc(tables * 4);
  for (let table = 0; table < tables; table += 1) {
    directory.writeUInt32LE(firstTable + table * tableSectors, table * 4);
  }
  const extents = Array.from({ length: count }, (_, index) => {
    const name = `disk-s${index}.vmdk`;
    const fd = openSync(join(folder, name), 'w');
    writeSync(fd, header, 0, header.length, 0);
    writeSync(fd, directory, 0, directory.length, DIRECTORY_SECTOR * SECTOR_SIZE);
    ftruncateSync(fd, overhead * SECTOR_SIZE);
    closeSync(fd);
    return `RW ${sectors} SPARSE "${name}"`;
  });
  const path = join(folder, 'disk.vmdk');
  writeFileSync(path, descriptorText({ createType: 'twoGbMaxExtentSparse', extents }));
  return path;
}

const SE_SECTORS_PER_TABLE = ((SESPARSE_TABLE_SECTORS * SECTOR_SIZE) / 8) * SESPARSE_GRAIN_SECTORS;
const SE_DIRECTORY_SECTOR = 2;

/**
 * `depth` seSparse snapshots on each other, each with `tables` tables (16 MiB of disk each) without
 * an entry. @returns the top one.
 */
export function writeSeSparseStack(folder: string, depth: number, tables: number): string {
  const sectors = tables * SE_SECTORS_PER_TABLE;
  const tablesOffset = SE_DIRECTORY_SECTOR + Math.ceil((tables * 8) / SECTOR_SIZE);
  const end = tablesOffset + tables * SESPARSE_TABLE_SECTORS;
  const header = SESPARSE_HEADER.encode({
    magic: SESPARSE_MAGIC,
    version: SESPARSE_VERSION,
    capacity: BigInt(sectors),
    grainSize: BigInt(SESPARSE_GRAIN_SECTORS),
    grainTableSize: BigInt(SESPARSE_TABLE_SECTORS),
    volatileHeaderOffset: 1n,
    directoryOffset: BigInt(SE_DIRECTORY_SECTOR),
    tablesOffset: BigInt(tablesOffset),
    grainsOffset: BigInt(end),
  });
  const state = SESPARSE_VOLATILE_HEADER.encode({ magic: SESPARSE_VOLATILE_MAGIC });
  const directory = Buffer.alloc(tables * 8);
  for (let table = 0; table < tables; table += 1) {
    directory.writeUInt32LE(table, table * 8);
    directory.writeUInt32LE(SESPARSE_DIRECTORY_TYPE, table * 8 + 4);
  }
  for (let level = 0; level < depth; level += 1) {
    const name = `${level}-sesparse.vmdk`;
    const fd = openSync(join(folder, name), 'w');
    ftruncateSync(fd, end * SECTOR_SIZE);
    writeSync(fd, header, 0, header.length, 0);
    writeSync(fd, state, 0, state.length, SECTOR_SIZE);
    writeSync(fd, directory, 0, directory.length, SE_DIRECTORY_SECTOR * SECTOR_SIZE);
    closeSync(fd);
    const extents = [`RW ${sectors} SESPARSE "${name}"`];
    const parent = level === 0 ? {} : { parentCid: '1234abcd', parentName: `${level - 1}.vmdk` };
    const text = descriptorText({ createType: 'seSparse', extents, ...parent });
    writeFileSync(join(folder, `${level}.vmdk`), text);
  }
  return join(folder, `${depth - 1}.vmdk`);
}

/**
 * A VHDX whose log is one entry of `updates`: zeroes that are asked for, sector by sector, in an
 * area behind all blocks; or sectors of data there. It lies at the end of the file.
 */
export function writeLongLog(path: string, updates: number, kind: 'zeroes' | 'data'): void {
  const model = stampedModel({ size: MiB, unitSize: MiB, pattern: 'd', salt: 1 });
  const { fileSize } = writeVhdx(path, { model, blockSize: MiB, logGuid: LOG_GUID });
  const logOffset = Math.ceil(fileSize / MiB) * MiB;
  const sector = Buffer.alloc(LOG_SECTOR_SIZE, 0x5a);
  const writes = Array.from({ length: updates }, (_, index) => {
    const offset = 2 ** 40 + 2 * index * LOG_SECTOR_SIZE;
    return kind === 'data' ? { offset, sector } : { offset, zeroLength: LOG_SECTOR_SIZE };
  });
  const sizes = { flushedFileOffset: fileSize, lastFileOffset: fileSize };
  const entry = buildLogEntry({
    ...{ sequenceNumber: 1n, tail: 0, logGuid: LOG_GUID, writes },
    ...sizes,
  });
  const fd = openSync(path, 'r+');
  writeSync(fd, entry, 0, entry.length, logOffset);
  const logLength = Math.ceil(entry.length / MiB) * MiB;
  ftruncateSync(fd, logOffset + logLength);
  const header = Buffer.alloc(LOG_SECTOR_SIZE);
  for (const at of HEADER_OFFSETS) {
    readSync(fd, header, 0, header.length, at);
    header.writeUInt32LE(logLength, 68);
    header.writeBigUInt64LE(BigInt(logOffset), 72);
    seal(header);
    writeSync(fd, header, 0, header.length, at);
  }
  closeSync(fd);
}
