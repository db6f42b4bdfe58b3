/** Which clusters of a qcow2 file hold its own tables, so that no data can lie there. */
import { alignUp } from '../../common/units.js';
import type { ReadableFile } from '../../storage/host-file.js';
import { FileRanges, firstAbove, type NamedRange, type Places } from '../file-ranges.js';
import { currentBudget } from '../memory-budget.js';
import type { Qcow2Header } from './qcow2-header.js';
import { ENTRY_SIZE, OFFSET_MASK_HIGH, OFFSET_MASK_LOW } from './qcow2-layout.js';
import { l1Bytes, type SnapshotTable } from './snapshot-table.js';

/** In place of the number of a cluster, where there is none. */
export const NO_CLUSTER = 0xffff_ffff;
/** Entries that are read at a time. */
const PIECE_ENTRIES = 8192;

/**
 * Header, L1 tables, refcount table and blocks, snapshot table; the L2 tables of the L1 table in
 * use are added by `addL2Tables`. The tables of other snapshots' disks are not looked at.
 */
export class OwnClusters {
  readonly #clusterSize: number;
  readonly #tables: FileRanges;
  /** Numbers of clusters, ascending. */
  readonly #refcountBlocks: Places;
  #l2Tables: Places = new Uint32Array(0);
  /** Clusters from the first on, before the second, are no tables: the next one asked for, too. */
  #freeFrom = 0;
  #freeTo = 0;

  /** @throws DiskError `damaged` when two tables named by the header overlap. */
  constructor(file: ReadableFile, header: Qcow2Header, table: SnapshotTable) {
    this.#clusterSize = header.clusterSize;
    this.#tables = new FileRanges(file.path, namedTables(header, table));
    const count = (header.refcountTable.count * header.clusterSize) / ENTRY_SIZE;
    const blocks = newClusterNumbers(file, { count, clusterSize: header.clusterSize });
    let found = 0;
    readOffsets(file, { offset: header.refcountTable.offset, count }, (_index, offset) => {
      // What lies elsewhere is no place for data either.
      if (offset % header.clusterSize !== 0 || offset >= file.size) return;
      blocks[found] = offset / header.clusterSize;
      found += 1;
    });
    // A copy: what is reserved is for as many blocks as there can be.
    this.#refcountBlocks = blocks.slice(0, found).sort();
    currentBudget().take(this.#refcountBlocks.byteLength, file.path);
  }

  /** `clusters` ascending. */
  addL2Tables(clusters: Places): void {
    this.#l2Tables = clusters;
    this.#freeTo = 0;
  }

  /** Whether the cluster that `offset` lies in is a table's. */
  includes(offset: number): boolean {
    const cluster = Math.floor(offset / this.#clusterSize);
    if (cluster >= this.#freeFrom && cluster < this.#freeTo) return false;
    const next = this.#nextFrom(cluster);
    this.#freeFrom = cluster;
    this.#freeTo = next;
    return next === cluster;
  }

  /** The first table's cluster that is not before this one. */
  #nextFrom(cluster: number): number {
    const table = Math.floor(this.#tables.nextAt(cluster * this.#clusterSize) / this.#clusterSize);
    return Math.min(
      Math.max(cluster, table),
      notBelow(this.#l2Tables, cluster),
      notBelow(this.#refcountBlocks, cluster),
    );
  }
}

/** The first of the ascending `values` that is not below `least`; infinity when all are. */
function notBelow(values: Places, least: number): number {
  return values[firstAbove(values, least - 1)] ?? Number.POSITIVE_INFINITY;
}

/**
 * Room for the numbers of `count` clusters of a file: in four bytes each, unless the file has more
 * of them than that. The largest number that fits is none of a cluster.
 */
export function newClusterNumbers(
  file: ReadableFile,
  { count, clusterSize }: { readonly count: number; readonly clusterSize: number },
): Places {
  const isShort = file.size / clusterSize < NO_CLUSTER;
  return isShort ? new Uint32Array(count) : new Float64Array(count);
}

/**
 * Reads a table of 64-bit offsets, bits 9-55 each, and tells of those that are not 0. The caller
 * has checked that it lies in the file.
 */
export function readOffsets(
  file: ReadableFile,
  place: { readonly offset: number; readonly count: number },
  tell: (index: number, offset: number) => void,
): void {
  const bytes = Buffer.alloc(Math.min(PIECE_ENTRIES, place.count) * ENTRY_SIZE);
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  for (let first = 0; first < place.count; first += PIECE_ENTRIES) {
    const count = Math.min(PIECE_ENTRIES, place.count - first);
    file.readExact(bytes, 0, count * ENTRY_SIZE, place.offset + first * ENTRY_SIZE);
    for (let index = 0; index < count; index += 1) {
      const high = view.getUint32(index * ENTRY_SIZE) & OFFSET_MASK_HIGH;
      const low = (view.getUint32(index * ENTRY_SIZE + 4) & OFFSET_MASK_LOW) >>> 0;
      if (high !== 0 || low !== 0) tell(first + index, high * 2 ** 32 + low);
    }
  }
}

function namedTables(header: Qcow2Header, table: SnapshotTable): NamedRange[] {
  const { clusterSize, l1, refcountTable, snapshots } = header;
  const whole = (length: number) => alignUp(length, clusterSize);
  const ranges: NamedRange[] = [
    { name: 'the header', offset: 0, length: clusterSize },
    { name: 'the L1 table', offset: l1.offset, length: whole(l1.count * ENTRY_SIZE) },
    {
      name: 'the refcount table',
      offset: refcountTable.offset,
      length: refcountTable.count * clusterSize,
    },
    { name: 'the snapshot table', offset: snapshots.offset, length: whole(table.length) },
  ];
  for (const snapshot of table.snapshots) {
    ranges.push({
      name: 'the L1 table of a snapshot',
      offset: Number(snapshot.l1TableOffset),
      length: whole(l1Bytes(snapshot)),
    });
  }
  return ranges;
}
