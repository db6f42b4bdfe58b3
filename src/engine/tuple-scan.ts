/** Reading a tuple file back: which records count, and what a torn commit left is put right. */
import { fstatSync } from 'node:fs';
import { DiskError } from '../common/errors.js';
import { MiB } from '../common/units.js';
import { readPadded, writeExact } from '../storage/exact-io.js';
import { hostCalls } from '../storage/host-calls.js';
import { type HeaderCopies, truncateRecords } from './delta-files.js';
import {
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

/**
 * Hands every record that counts to `apply`, oldest first.
 *
 * Within one cache epoch every record that verifies counts: the process died, the page cache did
 * not. In another epoch only committed ones do. Among the records of the very last commit (newer
 * than the other header copy) one may be torn: that commit was never acknowledged, so it is
 * skipped.
 *
 * @throws DiskError `damaged` (EIO) naming the first damaged record that was durable.
 */
export function scanTuples(
  fd: number,
  path: string,
  copies: HeaderCopies,
  epoch: string,
  apply: (record: TupleRecord) => void,
): ScanResult {
  const { current, previousCommitted } = copies;
  const inFile = Math.floor((fstatSync(fd).size - RECORDS_OFFSET) / RECORD_SIZE);
  const sameEpoch = current.cacheEpoch === epoch;
  const committed = current.committedRecords;
  const limit = sameEpoch ? Math.max(inFile, committed) : committed;
  const seed = recordSeed(current.id);
  const record: TupleRecord = { kind: RECORD_WRITE, block: 0, count: 0, slot: 0 };
  const bytes = Buffer.alloc(Math.min(limit, CHUNK_RECORDS) * RECORD_SIZE);
  const torn: number[] = [];
  let nextSlot = 0;
  for (let sequence = 0; sequence < limit; sequence += 1) {
    const inChunk = sequence % CHUNK_RECORDS;
    if (inChunk === 0) {
      const length = Math.min(limit - sequence, CHUNK_RECORDS) * RECORD_SIZE;
      const offset = RECORDS_OFFSET + sequence * RECORD_SIZE;
      readPadded(fd, bytes, 0, length, offset, 'tuples.read');
    }
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
    apply(record);
  }
  return { count: limit, torn, nextSlot, uncommitted: limit > committed };
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
