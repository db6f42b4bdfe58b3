/**
 * Merging a row of sealed deltas that nothing names and that have one child each into one delta, so
 * that chains do not grow for ever under disks whose snapshots come and go. Background thread.
 *
 * 1. read the logs of the row, oldest first, into one map
 * 2. copy what it maps into the data file of a new delta (sharing blocks where the host can)
 * 3. write that delta's tuples, sealed, and make both durable
 *
 * The row itself is not touched. The caller then lets the child of the row name the new delta,
 * which is the commit point; before it the new delta is garbage, after it the row is.
 */
import { closeSync, openSync } from 'node:fs';
import { DiskError } from '../common/errors.js';
import { BLOCK_SIZE, GiB, MiB } from '../common/units.js';
import { readPadded, writeExact } from '../storage/exact-io.js';
import { reflink } from '../storage/reflink.js';
import { ChainMap, DATA, levelsFor, UNMAPPED, ZERO } from './chain-map.js';
import { type DeltaFiles, readHeaderFrom } from './delta-files.js';
import { type DeltaId, newDeltaId } from './delta-id.js';
import {
  type DeltaHeader,
  MAX_RECORD_BLOCKS,
  RECORD_WRITE,
  RECORD_ZERO,
  type TupleRecord,
} from './delta-layout.js';
import { PagePool } from './page-pool.js';
import { PAGE_WORDS } from './shared-memory.js';
import { scanTuples } from './tuple-scan.js';

/** A row is merged when so many of its deltas are of comparable size. */
export const ROW_LENGTH = 8;

const POOL_BYTES = 4 * GiB;
const MAX_ADDRESS = 2 ** 32 - 1;
const CHUNK = MiB;
/** No epoch has this name: only committed records are read, and sealed deltas have no others. */
const NO_EPOCH = '';

export interface MergeJob {
  /** Oldest first, each the only child of the one before. */
  readonly row: readonly DeltaId[];
}

interface Source {
  readonly fd: number;
  /** Addresses of its slots begin here. */
  readonly firstAddress: number;
  readonly endAddress: number;
}

/** @returns the new delta, durable, with the row's content on top of what the row stood on. */
export async function mergeRow(files: DeltaFiles, { row }: MergeJob): Promise<DeltaId> {
  const headers = row.map((id) => files.readHeader(id).current);
  const bottom = headers[0]!;
  const top = headers.at(-1)!;
  const sources: Source[] = [];
  try {
    const map = mapRow(files, headers, sources);
    const id = newDeltaId();
    const blocks = Math.ceil(top.virtualSize / BLOCK_SIZE);
    await files.createSealed({ ...top, id, below: bottom.below, allocation: 'dynamic' }, (data) =>
      copyRow(map, blocks, sources, data),
    );
    return id;
  } finally {
    for (const { fd } of sources) closeSync(fd);
  }
}

/** One map of all deltas of the row; opens their data files into `sources`. */
function mapRow(files: DeltaFiles, headers: readonly DeltaHeader[], sources: Source[]): ChainMap {
  const memory = new SharedArrayBuffer(POOL_BYTES);
  const pages = new Uint32Array(memory);
  const pool = new PagePool({ pages, pageWords: new Int32Array(memory, 0, PAGE_WORDS) });
  const size = Math.max(...headers.map((header) => header.virtualSize));
  const levels = levelsFor(Math.ceil(size / BLOCK_SIZE));
  const map = new ChainMap(pages, pool, { root: pool.allocate(), levels });
  let firstAddress = 2;
  for (const header of headers) {
    const path = files.tuplesPath(header.id);
    const tuples = openSync(path, 'r');
    let endAddress = firstAddress;
    try {
      scanTuples(tuples, path, readHeaderFrom(tuples, path, header.id), NO_EPOCH, (record) => {
        const { kind, block, count, slot } = record;
        if (kind === RECORD_ZERO) map.set(block, count, ZERO);
        else map.set(block, count, DATA, firstAddress + slot);
        endAddress = Math.max(endAddress, firstAddress + slot + count);
      });
    } finally {
      closeSync(tuples);
    }
    if (endAddress > MAX_ADDRESS) {
      throw new DiskError('not-supported', 'a row of deltas holds more than 16 TiB: left as it is');
    }
    const fd = openSync(files.dataPath(header.id, header.dataGeneration), 'r');
    sources.push({ fd, firstAddress, endAddress });
    firstAddress = endAddress;
  }
  return map;
}

/** Copies what the map names into the slots of `data`. @returns the records of the new delta. */
function copyRow(
  map: ChainMap,
  blocks: number,
  sources: readonly Source[],
  data: number,
): TupleRecord[] {
  const records: TupleRecord[] = [];
  const buffer = Buffer.alloc(CHUNK);
  let slot = 0;
  for (let block = 0; block < blocks; ) {
    map.find(block, Math.min(blocks - block, MAX_RECORD_BLOCKS));
    const { kind, address } = map;
    let { count } = map;
    if (kind === ZERO) records.push({ kind: RECORD_ZERO, block, count, slot: 0 });
    if (kind !== UNMAPPED && kind !== ZERO) {
      const source = sources.find((each) => address < each.endAddress)!;
      count = Math.min(count, source.endAddress - address);
      copySlots(source, address - source.firstAddress, { data, slot, count, buffer });
      records.push({ kind: RECORD_WRITE, block, count, slot });
      slot += count;
    }
    block += count;
  }
  return records;
}

interface Target {
  readonly data: number;
  readonly slot: number;
  readonly count: number;
  readonly buffer: Buffer;
}

function copySlots(source: Source, slot: number, target: Target): void {
  const length = target.count * BLOCK_SIZE;
  const from = slot * BLOCK_SIZE;
  const to = target.slot * BLOCK_SIZE;
  const range = { sourceFd: source.fd, sourceOffset: from, targetFd: target.data };
  if (reflink({ ...range, targetOffset: to, length })) return;
  for (let done = 0; done < length; ) {
    const part = Math.min(CHUNK, length - done);
    readPadded(source.fd, target.buffer, 0, part, from + done);
    writeExact(target.data, target.buffer, 0, part, to + done);
    done += part;
  }
}

/**
 * The part of a row that is worth merging: from its top down, as long as a delta is not larger than
 * all those above it together, so that no data is copied more often than its size doubles.
 * @param sizes bytes of each delta of the row, oldest first.
 * @returns index of the first delta to merge, or -1 when too few are of comparable size.
 */
export function mergeStart(sizes: readonly number[], rowLength: number): number {
  let start = sizes.length - 1;
  let above = sizes[start] ?? 0;
  while (start > 0 && sizes[start - 1]! <= Math.max(above, MiB)) {
    start -= 1;
    above += sizes[start]!;
  }
  return sizes.length - start >= rowLength ? start : -1;
}
