/** Which clusters of a qcow2 file hold its own tables, so that no data can lie there. */
import { alignUp } from '../../common/units.js';
import type { ReadableFile } from '../../storage/host-file.js';
import { FileRanges, includesSorted, type NamedRange } from '../file-ranges.js';
import { currentBudget } from '../memory-budget.js';
import type { Qcow2Header } from './qcow2-header.js';
import { ENTRY_SIZE, OFFSET_MASK_HIGH, OFFSET_MASK_LOW } from './qcow2-layout.js';
import { l1Bytes, type SnapshotTable } from './snapshot-table.js';

/**
 * Header, L1 tables, refcount table and blocks, snapshot table; the L2 tables of the L1 table in
 * use are added by `addL2Tables`. The tables of other snapshots' disks are not looked at.
 */
export class OwnClusters {
  readonly #clusterSize: number;
  readonly #tables: FileRanges;
  /** Offsets, ascending. */
  readonly #refcountBlocks: Float64Array;
  #l2Tables: Float64Array = new Float64Array(0);

  /** @throws DiskError `damaged` when two tables named by the header overlap. */
  constructor(file: ReadableFile, header: Qcow2Header, table: SnapshotTable) {
    this.#clusterSize = header.clusterSize;
    this.#tables = new FileRanges(file.path, namedTables(header, table));
    this.#refcountBlocks = readOffsets(file, {
      offset: header.refcountTable.offset,
      count: (header.refcountTable.count * header.clusterSize) / ENTRY_SIZE,
    }).filter((offset) => offset > 0 && offset % header.clusterSize === 0);
    this.#refcountBlocks.sort();
  }

  /** `offsets` ascending. */
  addL2Tables(offsets: Float64Array): void {
    this.#l2Tables = offsets;
  }

  /** Whether the cluster that `offset` lies in is a table's. */
  includes(offset: number): boolean {
    const cluster = offset - (offset % this.#clusterSize);
    return (
      this.#tables.overlap(cluster, this.#clusterSize) ||
      includesSorted(this.#l2Tables, cluster) ||
      includesSorted(this.#refcountBlocks, cluster)
    );
  }
}

/**
 * Reads a table of 64-bit offsets, bits 9-55 each. The caller has checked that it lies in the file.
 */
export function readOffsets(
  file: ReadableFile,
  place: { readonly offset: number; readonly count: number },
): Float64Array {
  currentBudget().take(place.count * ENTRY_SIZE, file.path);
  const offsets = new Float64Array(place.count);
  // Decoded where it was read: an entry takes as many bytes before as after.
  const bytes = Buffer.from(offsets.buffer);
  file.readExact(bytes, 0, bytes.length, place.offset);
  const view = new DataView(offsets.buffer);
  for (let index = 0; index < place.count; index += 1) {
    const high = view.getUint32(index * ENTRY_SIZE) & OFFSET_MASK_HIGH;
    const low = view.getUint32(index * ENTRY_SIZE + 4) & OFFSET_MASK_LOW;
    offsets[index] = high * 2 ** 32 + (low >>> 0);
  }
  return offsets;
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
