/**
 * Headers of open tuple files, and what is read with them. See header-copies.ts for what keeps the
 * two copies alike.
 */
import { DiskError } from '../../common/errors.js';
import { KiB } from '../../common/units.js';
import { writeExact } from '../../storage/exact-io.js';
import { hostCalls } from '../../storage/host-calls.js';
import type { DeltaId } from '../delta-id.js';
import {
  type DeltaHeader,
  decodeHeader,
  encodeHeader,
  HEADER_OFFSETS,
  HEADER_SIZE,
  RECORD_SIZE,
  RECORDS_OFFSET,
} from './delta-layout.js';

/** Both headers as found, newest first. */
export interface HeaderCopies {
  readonly current: DeltaHeader;
  /**
   * `committedRecords` of the other copy: what was durable one commit earlier. Where that copy is
   * not intact, all that this one counts: no power cut spoils one copy and tears records that the
   * other counts, and what may have been durable is no torn record.
   */
  readonly previousCommitted: number;
  /** What the other copy says lies below, where it says something else: see `changeBelow`. */
  readonly otherBelow?: DeltaId;
}

/** Up to the end of the second copy. */
const HEADERS_END = HEADER_OFFSETS[1] + HEADER_SIZE;

/** The headers, and the records of a delta that was written to a little: bytes. */
const START = 16 * KiB;

/** Of this thread; what is in them is decoded or copied at once. */
const headers = Buffer.alloc(HEADERS_END);
const start = Buffer.alloc(START);

/**
 * Both copies of an open tuple file (of the delta `id`, if given). @throws DiskError `damaged` when
 * neither is intact.
 */
export function readHeaderFrom(fd: number, path: string, id: DeltaId | undefined): HeaderCopies {
  return headerCopiesIn(readStart(fd, headers), path, id);
}

/** A sealed delta as its tuple file says, without what is in its data file. */
export interface SealedDelta {
  readonly copies: HeaderCopies;
  /** All that are in the file. */
  readonly records: Buffer;
}

/**
 * Reads a tuple file as far as one read goes, which is all of it where the delta is small.
 * @returns its headers; and what may be kept of it. @throws DiskError as `readHeaderFrom`.
 */
export function readWhole(
  fd: number,
  path: string,
  id: DeltaId,
): { copies: HeaderCopies; sealed: SealedDelta | undefined } {
  const bytes = readStart(fd, start);
  const copies = headerCopiesIn(bytes, path, id);
  const { sealed, committedRecords } = copies.current;
  const isWhole = bytes.length < start.length;
  const end = RECORDS_OFFSET + committedRecords * RECORD_SIZE;
  if (!sealed || !isWhole || end > bytes.length) return { copies, sealed: undefined };
  return { copies, sealed: { copies, records: Buffer.from(bytes.subarray(RECORDS_OFFSET)) } };
}

/** Reads a file from its start. @returns the part of `target` that it fills. */
function readStart(fd: number, target: Buffer): Buffer {
  for (let done = 0; done < target.length; ) {
    // What lies before an error is read without one: the end of the file is an answer of its own.
    const count = hostCalls.read(fd, target, done, target.length - done, done, 'tuples.read-start');
    if (count === 0) return target.subarray(0, done);
    done += count;
  }
  return target;
}

function headerCopiesIn(bytes: Buffer, path: string, id: DeltaId | undefined): HeaderCopies {
  const copies: DeltaHeader[] = [];
  const [first, second] = HEADER_OFFSETS.map((at) => bytes.subarray(at, at + HEADER_SIZE));
  for (const copy of [first!, second!]) {
    if (copy.length < HEADER_SIZE) continue;
    // Nearly always they are alike.
    const isSame = copy === second && copies.length > 0 && copy.equals(first!);
    const header = isSame ? copies[0] : decodeHeader(copy, path);
    if (header !== undefined && (id === undefined || header.id === id)) copies.push(header);
  }
  copies.sort((a, b) => b.generation - a.generation);
  const [current, previous] = copies;
  if (current === undefined) {
    throw new DiskError('damaged', `${path}: both header copies of the delta are damaged`, {
      errno: 'EIO',
      hint: 'restore this file from a backup of the store',
    });
  }
  const previousCommitted = previous?.committedRecords ?? current.committedRecords;
  const other = previous?.below;
  if (other?.kind !== 'delta') return { current, previousCommitted };
  if (current.below.kind === 'delta' && current.below.id === other.id) {
    return { current, previousCommitted };
  }
  return { current, previousCommitted, otherBelow: other.id };
}

/**
 * Publishes a header: the copy that is not in force is overwritten. Not durable until the file is
 * synced.
 * @returns the header as written, with its new generation.
 */
export function writeHeader(fd: number, header: DeltaHeader, label: string): DeltaHeader {
  const next = { ...header, generation: header.generation + 1 };
  writeExact(fd, encodeHeader(next), 0, HEADER_SIZE, HEADER_OFFSETS[next.generation % 2]!, label);
  return next;
}
