/**
 * Giving back what nobody can see any more: a sealed delta without a label and with a single child
 * loses every block that the child overrides. Runs on a background thread; safe to repeat and to
 * break off at any point.
 *
 * Only committed records of the child count: after a power cut the others might not be there, and
 * the block would be answered by the delta below again. The caller has seen to it that no request
 * is still reading what is punched out (`OpenVolumes.settleReaders`).
 */
import { closeSync, openSync } from 'node:fs';
import { BLOCK_SIZE, GiB } from '../common/units.js';
import { punchHole } from '../storage/sparse-space.js';
import { ChainMap, DATA, levelsFor, UNMAPPED } from './chain-map.js';
import { type DeltaFiles, readHeaderFrom } from './delta-files.js';
import type { DeltaId } from './delta-id.js';
import { RECORD_ZERO, type TupleRecord } from './delta-layout.js';
import { PagePool } from './page-pool.js';
import { PAGE_WORDS } from './shared-memory.js';
import { scanTuples } from './tuple-scan.js';

export interface ReclaimJob {
  /** The sealed delta that gives back. */
  readonly delta: DeltaId;
  /** Its only child. */
  readonly child: DeltaId;
  /** Records of the child that may be trusted to be durable: its committed ones, as read before. */
  readonly childRecords: number;
}

/** Address space for the map of one delta; only what is touched takes memory. */
const POOL_BYTES = 2 * GiB;
/** No epoch has this name: only committed records are read. */
const NO_EPOCH = '';

/** @returns bytes of slots given back. @throws DiskError what reading the two logs throws. */
export function reclaimDelta(files: DeltaFiles, job: ReclaimJob): number {
  const map = slotsOf(files, job.delta);
  const header = files.readHeader(job.delta).current;
  const data = openSync(files.dataPath(job.delta, header.dataGeneration), 'r+');
  let freed = 0;
  try {
    let seen = 0;
    scanLog(files, job.child, (record) => {
      seen += 1;
      if (seen <= job.childRecords) freed += punchUnder(map, record, data);
    });
  } finally {
    closeSync(data);
  }
  return freed * BLOCK_SIZE;
}

/** Punches the slots of the blocks that a record of the child overrides. @returns how many. */
function punchUnder(map: ChainMap, record: TupleRecord, data: number): number {
  const end = record.block + record.count;
  let freed = 0;
  for (let block = record.block; block < end; block += map.count) {
    map.find(block, end - block);
    if (map.kind !== DATA) continue;
    const { address, count } = map;
    punchHole(data, (address - FIRST_ADDRESS) * BLOCK_SIZE, count * BLOCK_SIZE);
    map.set(block, count, UNMAPPED);
    map.count = count;
    freed += count;
  }
  return freed;
}

/** Addresses of a map are above those that mean something else. */
const FIRST_ADDRESS = 2;

/** A delta's own blocks and their slots, in a map of this thread's own. */
function slotsOf(files: DeltaFiles, id: DeltaId): ChainMap {
  const memory = new SharedArrayBuffer(POOL_BYTES);
  const pages = new Uint32Array(memory);
  const pool = new PagePool({ pages, pageWords: new Int32Array(memory, 0, PAGE_WORDS) });
  const { virtualSize } = files.readHeader(id).current;
  const place = { root: pool.allocate(), levels: levelsFor(Math.ceil(virtualSize / BLOCK_SIZE)) };
  const map = new ChainMap(pages, pool, place);
  scanLog(files, id, ({ kind, block, count, slot }) => {
    if (kind === RECORD_ZERO) map.set(block, count, UNMAPPED);
    else map.set(block, count, DATA, slot + FIRST_ADDRESS);
  });
  return map;
}

function scanLog(files: DeltaFiles, id: DeltaId, apply: (record: TupleRecord) => void): void {
  const path = files.tuplesPath(id);
  const fd = openSync(path, 'r');
  try {
    scanTuples(fd, path, readHeaderFrom(fd, path, id), NO_EPOCH, apply);
  } finally {
    closeSync(fd);
  }
}
