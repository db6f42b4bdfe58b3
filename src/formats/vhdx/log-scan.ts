/** Finds the valid entries in the log of a VHDX ([MS-VHDX] 2.3.1), and what they write. */
import { crc32cOf } from '../../common/checksum.js';
import { divCeil, KiB, MiB } from '../../common/units.js';
import type { Uuid } from '../../common/uuid.js';
import { damaged, unsupported } from '../image-error.js';
import type { LogRing } from './log-ring.js';
import { LogUpdates } from './log-updates.js';
import {
  CHECKSUM_OFFSET,
  DATA_DESCRIPTOR_SIGNATURE,
  DATA_SECTOR,
  DATA_SECTOR_SIGNATURE,
  LOG_DESCRIPTOR,
  LOG_ENTRY,
  LOG_ENTRY_SIGNATURE,
  LOG_SECTOR_SIZE,
  MAX_LOG_UPDATES,
  ZERO_DESCRIPTOR_SIGNATURE,
} from './vhdx-layout.js';

/** A valid entry; positions and lengths are bytes in the ring. */
export interface LogEntry {
  readonly at: number;
  readonly length: number;
  /** Where the oldest entry begins that was not written out yet when this one was made. */
  readonly tail: number;
  readonly sequenceNumber: bigint;
  readonly descriptorCount: number;
  readonly flushedFileOffset: bigint;
  readonly lastFileOffset: bigint;
}

type Descriptor = ReturnType<typeof LOG_DESCRIPTOR.decode>;

const SCAN_SIZE = MiB;
const CHECKSUM_CHUNK = 64 * KiB;
/** How often over a log may be checksummed: only in a forged one do many entries overlap. */
const MAX_CHECKSUM_ROUNDS = 8;
/** File offsets in a log that are above it are nonsense. */
const MAX_FILE_OFFSET = BigInt(Number.MAX_SAFE_INTEGER);

/**
 * All valid entries of the log with this id, by position.
 * @throws DiskError `damaged` for a forged log that would take for ever to check.
 */
export function findEntries(ring: LogRing, logGuid: Uuid): LogEntry[] {
  const entries: LogEntry[] = [];
  const budget = { bytes: ring.length * MAX_CHECKSUM_ROUNDS };
  const chunk = Buffer.alloc(Math.min(SCAN_SIZE, ring.length));
  for (let start = 0; start < ring.length; start += chunk.length) {
    ring.read(chunk, start);
    for (let at = 0; at < chunk.length; at += LOG_SECTOR_SIZE) {
      if (chunk.readUInt32LE(at) !== LOG_ENTRY_SIGNATURE) continue;
      const header = LOG_ENTRY.decode(chunk, at);
      if (header.logGuid !== logGuid) continue;
      const entry = { ...header, at: start + at, length: header.entryLength };
      if (isValid(ring, entry, header.checksum, budget)) entries.push(entry);
    }
  }
  return entries;
}

/** What the entries want to be written, in order. @throws DiskError `not-supported`: too much. */
export function readUpdates(ring: LogRing, entries: readonly LogEntry[]): LogUpdates {
  const { path } = ring.file;
  const count = entries.reduce((sum, entry) => sum + entry.descriptorCount, 0);
  if (count > MAX_LOG_UPDATES) {
    throw unsupported(path, `its log holds more than ${MAX_LOG_UPDATES} updates`);
  }
  const updates = new LogUpdates(count, path);
  for (const entry of entries) {
    let dataSector = descriptorSectors(entry.descriptorCount);
    for (const { signature, fileOffset, leading, trailing } of descriptorsOf(ring, entry)) {
      const offset = Number(fileOffset);
      if (signature !== DATA_DESCRIPTOR_SIGNATURE) {
        updates.addZeroes(offset, Number(leading.readBigUInt64LE(0)));
        continue;
      }
      const sector = ring.after(entry.at, dataSector * LOG_SECTOR_SIZE);
      const sectorOffset = ring.fileOffset(sector);
      updates.addSector(offset, LOG_SECTOR_SIZE, { leading, trailing, sectorOffset });
      dataSector += 1;
    }
  }
  return updates;
}

function descriptorSectors(descriptorCount: number): number {
  return divCeil(LOG_ENTRY.size + descriptorCount * LOG_DESCRIPTOR.size, LOG_SECTOR_SIZE);
}

function isValid(
  ring: LogRing,
  entry: LogEntry,
  checksum: number,
  budget: { bytes: number },
): boolean {
  const { length, tail, sequenceNumber, descriptorCount } = entry;
  const shapeIsSound =
    length >= LOG_SECTOR_SIZE &&
    length <= ring.length &&
    length % LOG_SECTOR_SIZE === 0 &&
    tail % LOG_SECTOR_SIZE === 0 &&
    tail < ring.length &&
    sequenceNumber > 0n &&
    descriptorSectors(descriptorCount) * LOG_SECTOR_SIZE <= length;
  if (!shapeIsSound) return false;
  let dataSectors = 0;
  for (const descriptor of descriptorsOf(ring, entry)) {
    if (!isDescriptorValid(descriptor, sequenceNumber)) return false;
    if (descriptor.signature === DATA_DESCRIPTOR_SIGNATURE) dataSectors += 1;
  }
  return hasDataSectors(ring, entry, dataSectors) && checksumOf(ring, entry, budget) === checksum;
}

/** Reads the descriptors one by one, so that the first that is wrong ends the work. */
function* descriptorsOf(ring: LogRing, entry: LogEntry): Generator<Descriptor> {
  const sector = Buffer.alloc(LOG_SECTOR_SIZE);
  let left = entry.descriptorCount;
  let from = LOG_ENTRY.size;
  for (let at = entry.at; left > 0; at = ring.after(at, LOG_SECTOR_SIZE)) {
    ring.read(sector, at);
    for (; from < LOG_SECTOR_SIZE && left > 0; from += LOG_DESCRIPTOR.size) {
      yield LOG_DESCRIPTOR.decode(sector, from);
      left -= 1;
    }
    from = 0;
  }
}

function isDescriptorValid(descriptor: Descriptor, sequenceNumber: bigint): boolean {
  const { signature, fileOffset, leading } = descriptor;
  const isZero = signature === ZERO_DESCRIPTOR_SIGNATURE;
  const length = isZero ? leading.readBigUInt64LE(0) : BigInt(LOG_SECTOR_SIZE);
  return (
    (isZero || signature === DATA_DESCRIPTOR_SIGNATURE) &&
    descriptor.sequenceNumber === sequenceNumber &&
    fileOffset % BigInt(LOG_SECTOR_SIZE) === 0n &&
    length % BigInt(LOG_SECTOR_SIZE) === 0n &&
    fileOffset + length <= MAX_FILE_OFFSET
  );
}

/**
 * Whether the sectors behind the descriptors are there and carry the entry's number at both ends.
 */
function hasDataSectors(ring: LogRing, entry: LogEntry, count: number): boolean {
  const first = descriptorSectors(entry.descriptorCount);
  if ((first + count) * LOG_SECTOR_SIZE > entry.length) return false;
  const sector = Buffer.alloc(LOG_SECTOR_SIZE);
  const high = Number(entry.sequenceNumber >> 32n);
  const low = Number(entry.sequenceNumber & 0xffffffffn);
  const { offsetOf } = DATA_SECTOR;
  for (let index = first; index < first + count; index += 1) {
    ring.read(sector, ring.after(entry.at, index * LOG_SECTOR_SIZE));
    const sound =
      sector.readUInt32LE(offsetOf.signature) === DATA_SECTOR_SIGNATURE &&
      sector.readUInt32LE(offsetOf.sequenceHigh) === high &&
      sector.readUInt32LE(offsetOf.sequenceLow) === low;
    if (!sound) return false;
  }
  return true;
}

/** CRC-32C over the whole entry, its own field counted as zeroes. */
function checksumOf(ring: LogRing, entry: LogEntry, budget: { bytes: number }): number {
  budget.bytes -= entry.length;
  if (budget.bytes < 0) throw damaged(ring.file.path, 'its log is full of entries that overlap');
  const chunk = Buffer.alloc(Math.min(CHECKSUM_CHUNK, entry.length));
  let crc = 0;
  for (let done = 0; done < entry.length; done += chunk.length) {
    const part = chunk.subarray(0, Math.min(chunk.length, entry.length - done));
    ring.read(part, ring.after(entry.at, done));
    if (done === 0) part.fill(0, CHECKSUM_OFFSET, CHECKSUM_OFFSET + 4);
    crc = crc32cOf(part, crc);
  }
  return crc;
}
