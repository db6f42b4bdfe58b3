/**
 * Merging a row of sealed deltas that nothing names and that have one child each into one delta, so
 * that chains do not grow for ever under disks whose snapshots come and go. Background thread.
 *
 * 1. read the logs of the row, oldest first, into one map
 * 2. copy what it maps into the data file of a new delta (sharing blocks where the host can); what
 *    is read is verified against the checksums of the row, what is shared keeps its old ones, so
 *    that rot stays recognisable
 * 3. write that delta's checksums and tuples, sealed, and make all of it durable
 *
 * The row itself is not touched. The caller then lets the child of the row name the new delta,
 * which is the commit point; before it the new delta is garbage, after it the row is.
 */
import { closeSync } from 'node:fs';
import { DiskError } from '../../common/errors.js';
import { BLOCK_SIZE, divCeil, GiB, MiB } from '../../common/units.js';
import { readPadded, writeExact } from '../../storage/exact-io.js';
import { reflink } from '../../storage/reflink.js';
import { requireStored } from '../../storage/stored-file.js';
import type { DeltaFiles } from '../delta/delta-files.js';
import { readHeaderFrom } from '../delta/delta-header.js';
import {
  type DeltaHeader,
  MAX_RECORD_BLOCKS,
  RECORD_WRITE,
  RECORD_ZERO,
  type TupleRecord,
} from '../delta/delta-layout.js';
import { NO_EPOCH } from '../delta/header-copies.js';
import { SumsReader, SumsWriter } from '../delta/sums-file.js';
import { NOT_COVERED, slotSum } from '../delta/sums-layout.js';
import { scanTuples } from '../delta/tuple-scan.js';
import { type DeltaId, newDeltaId } from '../delta-id.js';
import type { JobWork } from '../engine.js';
import { ChainMap } from '../shared/chain-map.js';
import { DATA, levelsFor, UNMAPPED, ZERO } from '../shared/map-words.js';
import { NodePool } from '../shared/node-pool.js';
import { PagePool } from '../shared/page-pool.js';
import { allocatePool, PAGE_WORDS } from '../shared/shared-memory.js';
import { Pace } from './pace.js';

/** A row is merged when so many of its deltas are of comparable size. */
export const ROW_LENGTH = 8;

const POOL_BYTES = 4 * GiB;
const MAX_ADDRESS = 2 ** 32 - 1;
const CHUNK = MiB;

export interface MergeJob {
  /** Oldest first, each the only child of the one before. */
  readonly row: readonly DeltaId[];
  /** See `JobWork`. */
  readonly pressing?: boolean;
}

interface Source {
  readonly id: DeltaId;
  readonly fd: number;
  /** Undefined while there are none. */
  readonly sums: SumsReader | undefined;
  /** Addresses of its slots begin here. */
  readonly firstAddress: number;
  readonly endAddress: number;
}

/**
 * @returns the new delta, durable, with the row's content on top of what the row stood on.
 * @throws DiskError `damaged` when something of the row has rotted, `not-supported` when its deltas
 * have more slots together than one delta may have.
 */
export async function mergeRow(
  files: DeltaFiles,
  { row, pressing }: MergeJob,
  work: JobWork = {},
): Promise<DeltaId> {
  const headers = row.map((id) => files.readHeader(id).current);
  const bottom = headers[0]!;
  const top = headers.at(-1)!;
  const sources: Source[] = [];
  try {
    const map = mapRow(files, headers, sources);
    const id = newDeltaId();
    const seen = divCeil(top.virtualSize, BLOCK_SIZE);
    const virtualSize = largestOf(headers);
    const blocks = divCeil(virtualSize, BLOCK_SIZE);
    const { below } = bottom;
    const like = { ...top, id, below, virtualSize, allocation: 'dynamic' } as const;
    const pace = new Pace({ ...work, pressing });
    await files.createSealed(like, (data) =>
      copyRow(files, { id, map, seen, blocks, sources, data, pace }),
    );
    return id;
  } finally {
    for (const { fd, sums } of sources) {
      closeSync(fd);
      sums?.close();
    }
  }
}

/** Bytes: a disk that was made smaller may have larger ones below. */
function largestOf(headers: readonly DeltaHeader[]): number {
  return Math.max(...headers.map((header) => header.virtualSize));
}

/** One map of all deltas of the row; opens their data files into `sources`. */
function mapRow(files: DeltaFiles, headers: readonly DeltaHeader[], sources: Source[]): ChainMap {
  const memory = allocatePool(POOL_BYTES, 'merging deltas');
  const pages = new Uint32Array(memory);
  const pool = new PagePool({ pages, pageWords: new Int32Array(memory, 0, PAGE_WORDS) });
  const levels = levelsFor(divCeil(largestOf(headers), BLOCK_SIZE));
  const map = new ChainMap(new NodePool(pool), { root: pool.allocate(), levels });
  let firstAddress = 2;
  for (const header of headers) {
    const path = files.tuplesPath(header.id);
    const tuples = requireStored(path, 'r');
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
      throw new DiskError('not-supported', 'the deltas of a row hold more than 16 TiB together');
    }
    const fd = requireStored(files.dataPath(header.id, header.dataGeneration), 'r');
    const { id } = header;
    // In the list first: whatever happens next, it is closed.
    const source = { id, fd, firstAddress, endAddress, sums: undefined as SumsReader | undefined };
    sources.push(source);
    source.sums = SumsReader.open(files, header);
    firstAddress = endAddress;
  }
  return map;
}

interface RowCopy {
  readonly id: DeltaId;
  readonly map: ChainMap;
  /** Up to here the disk shows them; what lies past it was left behind when it was made smaller. */
  readonly seen: number;
  readonly blocks: number;
  readonly sources: readonly Source[];
  /** The new data file. */
  readonly data: number;
  readonly pace: Pace;
}

/** Copies what the map names, and writes its checksums. @returns the records of the new delta. */
async function copyRow(files: DeltaFiles, row: RowCopy): Promise<TupleRecord[]> {
  const extents = planRow(row);
  const last = extents.findLast(({ source }) => source !== undefined);
  const slots = last === undefined ? 0 : last.record.slot + last.record.count;
  const sums = new SumsWriter(files, { id: row.id, dataGeneration: 1, slots });
  try {
    const { data, pace } = row;
    const target = { data, pace, sums, buffer: Buffer.alloc(CHUNK) };
    for (const { source, from, record } of extents) {
      if (source !== undefined) await copySlots(source, from, record, target);
    }
    sums.finish();
  } catch (error) {
    sums.abandon();
    throw error;
  }
  return extents.map(({ record }) => record);
}

interface PlannedExtent {
  readonly record: TupleRecord;
  /** Undefined for zeroes. */
  readonly source?: Source;
  /** The first slot there. */
  readonly from: number;
}

function planRow(row: RowCopy): PlannedExtent[] {
  const { map, seen, sources } = row;
  const planned: PlannedExtent[] = [];
  let slot = 0;
  for (let block = 0; block < seen; ) {
    map.find(block, Math.min(seen - block, MAX_RECORD_BLOCKS));
    const { kind, address } = map;
    let { count } = map;
    if (kind === ZERO)
      planned.push({ record: { kind: RECORD_ZERO, block, count, slot: 0 }, from: 0 });
    if (kind !== UNMAPPED && kind !== ZERO) {
      const source = sources.find((each) => address < each.endAddress)!;
      count = Math.min(count, source.endAddress - address);
      const record: TupleRecord = { kind: RECORD_WRITE, block, count, slot };
      planned.push({ record, source, from: address - source.firstAddress });
      slot += count;
    }
    block += count;
  }
  return [...planned, ...hiddenPastEnd(row).map((record) => ({ record, from: 0 }))];
}

/**
 * Nobody sees what the row holds past the disk's end, but it hides what lies below from a disk that
 * was made larger again, which stored no zeroes where it found some. So zeroes stay of it.
 */
function hiddenPastEnd({ map, seen, blocks }: RowCopy): TupleRecord[] {
  const zeroes: TupleRecord[] = [];
  for (let block = seen; block < blocks; block += map.count) {
    map.find(block, Math.min(blocks - block, MAX_RECORD_BLOCKS));
    const { kind, count } = map;
    if (kind === UNMAPPED) continue;
    const last = zeroes.at(-1);
    const isNext = last !== undefined && last.block + last.count === block;
    if (isNext && last.count + count <= MAX_RECORD_BLOCKS) {
      zeroes[zeroes.length - 1] = { ...last, count: last.count + count };
    } else zeroes.push({ kind: RECORD_ZERO, block, count, slot: 0 });
  }
  return zeroes;
}

interface Target {
  readonly data: number;
  readonly pace: Pace;
  readonly sums: SumsWriter;
  readonly buffer: Buffer;
}

async function copySlots(
  source: Source,
  from: number,
  record: TupleRecord,
  target: Target,
): Promise<void> {
  const { slot, count } = record;
  const length = count * BLOCK_SIZE;
  await target.pace.rest();
  const range = { sourceFd: source.fd, sourceOffset: from * BLOCK_SIZE, targetFd: target.data };
  const shared = reflink({ ...range, targetOffset: slot * BLOCK_SIZE, length }, 'merge.share');
  if (shared && source.sums !== undefined) {
    for (let done = 0; done < count; done += 1) {
      target.sums.put(slot + done, knownSum(source, source.sums, from + done));
    }
    return;
  }
  const most = CHUNK / BLOCK_SIZE;
  for (let done = 0; done < count; done += most) {
    const part = Math.min(most, count - done);
    const bytes = part * BLOCK_SIZE;
    readPadded(source.fd, target.buffer, 0, bytes, (from + done) * BLOCK_SIZE, 'merge.read');
    for (let index = 0; index < part; index += 1) {
      const at = index * BLOCK_SIZE;
      const sum = slotSum(target.buffer.subarray(at, at + BLOCK_SIZE));
      const known = verify(source, from + done + index, record.block + done + index, sum);
      target.sums.put(slot + done + index, known);
    }
    if (!shared) {
      writeExact(target.data, target.buffer, 0, bytes, (slot + done) * BLOCK_SIZE, 'merge.write');
    }
    await target.pace.rest();
  }
}

/** @returns what is to be the sum of the copy. @throws DiskError `damaged` when it rotted. */
function verify(source: Source, slot: number, block: number, sum: number): number {
  if (source.sums === undefined) return sum;
  const known = knownSum(source, source.sums, slot);
  // Punched, because what stands on the row overrides it.
  if (known === NOT_COVERED || known === sum) return known;
  throw rotten(`block ${block} of delta ${source.id} is not what it was`);
}

function knownSum(source: Source, sums: SumsReader, slot: number): number {
  const known = sums.get(slot);
  if (known !== undefined) return known;
  throw rotten(`the checksums of delta ${source.id} are damaged`);
}

function rotten(what: string): DiskError {
  return new DiskError('damaged', `${what}: its row of deltas is not merged`, {
    hint: `what is damaged, and who sees it: layerdisk check --deep`,
    errno: 'EIO',
  });
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
