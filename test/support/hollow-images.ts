/** Images that are next to nothing but tables, and those are holes: vast in memory, not on disk. */
import { closeSync, ftruncateSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { GiB, SECTOR_SIZE } from '../../src/common/units.js';
import { HEADER_V2, HEADER_V3, QCOW2_MAGIC } from '../../src/formats/qcow2/qcow2-layout.js';
import { NEWLINE_TEST, SPARSE_HEADER, SPARSE_MAGIC } from '../../src/formats/vmdk/sparse-layout.js';
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
