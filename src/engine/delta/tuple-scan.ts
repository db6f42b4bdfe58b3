/** Reading a tuple file back: which records count, and what a torn commit left is put right. */
import { fstatSync } from 'node:fs';
import { DiskError } from '../../common/errors.js';
import { MiB } from '../../common/units.js';
import { readPadded, writeExact } from '../../storage/exact-io.js';
import { hostCalls } from '../../storage/host-calls.js';
import type { HeaderCopies, SealedDelta } from './delta-header.js';
import {
  type DeltaHeader,
  decodeRecord,
  encodeRecord,
  RECORD_SIZE,
  RECORD_VOID,
  RECORD_WRITE,
  RECORDS_OFFSET,
  recordSeed,
  type TupleRecord,
} from './delta-layout.js';

const CHUNK_RECORDS = MiB / RECORD_SIZE;
const NOTHING = Buffer.alloc(0);

export interface ScanResult {
  /** Records that count: they are numbered 0 .. count - 1. */
  readonly count: number;
  /** Committed records that a power cut tore before the commit was acknowledged. */
  readonly torn: readonly number[];
  /** One past the highest slot that a record names. */
  readonly nextSlot: number;
  /** Whether more records count than the header in force says are durable. */
  readonly uncommitted: boolean;
}

/** Gets a record and its number in the file; torn and void ones have numbers, too. */
export type ApplyRecord = (record: TupleRecord, sequence: number) => void;

/** Hands every record that counts to `apply`, oldest first. @throws DiskError as `scan`. */
export function scanTuples(
  fd: number,
  path: string,
  copies: HeaderCopies,
  epoch: string,
  apply: ApplyRecord,
): ScanResult {
  const inFile = Math.floor((fstatSync(fd).size - RECORDS_OFFSET) / RECORD_SIZE);
  let bytes = Buffer.alloc(0);
  const read = (first: number, count: number): Buffer => {
    const length = count * RECORD_SIZE;
    if (bytes.length < length) bytes = Buffer.alloc(length);
    readPadded(fd, bytes, 0, length, RECORDS_OFFSET + first * RECORD_SIZE, 'tuples.read');
    return bytes;
  };
  return scan({ path, copies, inFile, read }, epoch, apply);
}

/** The same of a delta that was read as a whole. */
export function scanSealed(
  { copies, records }: SealedDelta,
  path: string,
  epoch: string,
  apply: ApplyRecord,
): ScanResult {
  const inFile = Math.floor(records.length / RECORD_SIZE);
  const read = (first: number): Buffer => records.subarray(first * RECORD_SIZE);
  return scan({ path, copies, inFile, read }, epoch, apply);
}

interface TupleSource {
  readonly path: string;
  readonly copies: HeaderCopies;
  /** Records that the file has room for. */
  readonly inFile: number;
  /** Those from `first` on; zeroes past the end of the file. */
  readonly read: (first: number, count: number) => Buffer;
}

/**
 * Within one cache epoch every record that verifies counts: the process died, the page cache did
 * not. In another epoch only committed ones do. Among the records of the very last commit (newer
 * than the other header copy) one may be torn: that commit was never acknowledged, so it is
 * skipped. A power cut that tears some leaves both copies: with one alone none is taken for torn.
 *
 * @throws DiskError `damaged` (EIO) naming the first damaged record that was durable.
 */
function scan(
  { path, copies, inFile, read }: TupleSource,
  epoch: string,
  apply: ApplyRecord,
): ScanResult {
  const { current, previousCommitted } = copies;
  const sameEpoch = current.cacheEpoch === epoch;
  const committed = current.committedRecords;
  const limit = sameEpoch ? Math.max(inFile, committed) : committed;
  const seed = recordSeed(current.id);
  const record: TupleRecord = { kind: RECORD_WRITE, block: 0, count: 0, slot: 0 };
  let bytes: Buffer = NOTHING;
  const torn: number[] = [];
  let nextSlot = 0;
  for (let sequence = 0; sequence < limit; sequence += 1) {
    const inChunk = sequence % CHUNK_RECORDS;
    if (inChunk === 0) bytes = read(sequence, Math.min(limit - sequence, CHUNK_RECORDS));
    if (!decodeRecord(bytes, inChunk * RECORD_SIZE, record, { sequence, seed })) {
      if (sequence >= committed) {
        return { count: sequence, torn, nextSlot, uncommitted: sequence > committed };
      }
      if (sequence < previousCommitted) throw damagedRecord(path, sequence);
      torn.push(sequence);
      continue;
    }
    if (record.kind === RECORD_VOID) continue;
    if (record.kind === RECORD_WRITE) nextSlot = Math.max(nextSlot, record.slot + record.count);
    apply(record, sequence);
  }
  return { count: limit, torn, nextSlot, uncommitted: limit > committed };
}

/**
 * Some records of a sealed delta, from number `from` on, for who must not read all of them at once.
 * @throws DiskError `damaged` when one is not what was written.
 */
export function readRecords(
  fd: number,
  header: DeltaHeader,
  { from, count }: { readonly from: number; readonly count: number },
): TupleRecord[] {
  const seed = recordSeed(header.id);
  const bytes = Buffer.alloc(count * RECORD_SIZE);
  readPadded(fd, bytes, 0, bytes.length, RECORDS_OFFSET + from * RECORD_SIZE, 'tuples.read');
  return Array.from({ length: count }, (_, at) => {
    const record: TupleRecord = { kind: RECORD_WRITE, block: 0, count: 0, slot: 0 };
    const sequence = from + at;
    if (!decodeRecord(bytes, at * RECORD_SIZE, record, { sequence, seed })) {
      throw damagedRecord(`the tuple file of delta ${header.id}`, sequence);
    }
    return record;
  });
}

function damagedRecord(path: string, sequence: number): DiskError {
  return new DiskError('damaged', `${path}: tuple ${sequence} is damaged`, {
    errno: 'EIO',
    hint: 'restore this file from a backup of the store',
  });
}

/**
 * Makes the file say plainly what the scan found: torn records become void ones, records that do
 * not count are cut off. Durable when it returns.
 */
export function repairTuples(fd: number, id: string, found: ScanResult): void {
  const seed = recordSeed(id);
  const bytes = Buffer.alloc(RECORD_SIZE);
  for (const sequence of found.torn) {
    const nothing: TupleRecord = { kind: RECORD_VOID, block: 0, count: 0, slot: 0 };
    encodeRecord(bytes, 0, nothing, { sequence, seed });
    const offset = RECORDS_OFFSET + sequence * RECORD_SIZE;
    writeExact(fd, bytes, 0, RECORD_SIZE, offset, 'repair.void');
  }
  if (found.torn.length > 0) hostCalls.syncData(fd, 'repair.sync-void');
  const size = fstatSync(fd).size;
  if (size > RECORDS_OFFSET + found.count * RECORD_SIZE) truncateRecords(fd, found.count);
}

/** Cuts the file after its last trusted record, so that new ones follow it. */
function truncateRecords(fd: number, count: number): void {
  hostCalls.truncate(fd, RECORDS_OFFSET + count * RECORD_SIZE, 'repair.truncate');
  hostCalls.sync(fd, 'repair.sync');
}
