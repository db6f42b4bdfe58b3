/**
 * The tuple file's header and records, byte for byte; DELTA-FORMAT.md is the prose of it. All
 * fields little endian.
 */
import { crc32 } from 'node:zlib';
import { invariant } from '../../common/assert.js';
import { DiskError } from '../../common/errors.js';
import { BLOCK_SIZE } from '../../common/units.js';
import type { DeltaId } from '../delta-id.js';
import type { Allocation, Below } from '../engine.js';

const FORMAT_VERSION = 1;
const MAGIC = Buffer.from('LDTUPLES', 'latin1');

/** Two copies, each in a page of its own so that a torn write can spoil only one. */
export const HEADER_SIZE = 512;
export const HEADER_OFFSETS = [0, 4096] as const;
export const RECORDS_OFFSET = 8192;
export const RECORD_SIZE = 32;

/** A slot number is 32 bits, so one delta holds at most 16 TiB. */
export const MAX_SLOTS = 2 ** 32 - 1;
/** `count` is 32 bits; longer extents take several records. */
export const MAX_RECORD_BLOCKS = 2 ** 31;

const FIELD = {
  magic: 0,
  version: 8,
  headerSize: 12,
  deltaId: 16,
  belowKind: 32,
  blockSize: 36,
  belowId: 40,
  virtualSize: 56,
  allocation: 64,
  flags: 68,
  dataGeneration: 72,
  reserved: 76,
  generation: 80,
  committedRecords: 88,
  mappedBlocks: 96,
  cacheEpoch: 104,
  crc: HEADER_SIZE - 4,
} as const;
invariant(FIELD.cacheEpoch + 16 <= FIELD.crc, 'header fields overlap the checksum');

const FLAG_SEALED = 1;
const BELOW_KINDS = ['none', 'delta', 'base'] as const;
const ALLOCATIONS: readonly Allocation[] = ['dynamic', 'static'];

export interface DeltaHeader {
  readonly id: DeltaId;
  readonly below: Below;
  /** Bytes. */
  readonly virtualSize: number;
  readonly allocation: Allocation;
  /** Read-only for ever, data and committed records durable. */
  readonly sealed: boolean;
  /** Names the data file (`ID.GENERATION.data`); 1 in all that this layerdisk writes. */
  readonly dataGeneration: number;
  /** The copy with the highest one is in force. */
  readonly generation: number;
  /** Records whose data is durable. */
  readonly committedRecords: number;
  /**
   * 4 KiB blocks that the chain up to here maps to delta data, as of the last commit. A hint for
   * `st_blocks`.
   */
  readonly mappedBlocks: number;
  /**
   * Which page cache the uncommitted records live in: 32 hex digits (see storage/cache-epoch.ts).
   */
  readonly cacheEpoch: string;
}

/** @returns HEADER_SIZE bytes, checksummed. */
export function encodeHeader(header: DeltaHeader): Buffer {
  const bytes = Buffer.alloc(HEADER_SIZE);
  MAGIC.copy(bytes, FIELD.magic);
  bytes.writeUInt32LE(FORMAT_VERSION, FIELD.version);
  bytes.writeUInt32LE(HEADER_SIZE, FIELD.headerSize);
  bytes.write(header.id, FIELD.deltaId, 16, 'hex');
  bytes.writeUInt32LE(BELOW_KINDS.indexOf(header.below.kind), FIELD.belowKind);
  bytes.writeUInt32LE(BLOCK_SIZE, FIELD.blockSize);
  if (header.below.kind !== 'none') bytes.write(header.below.id, FIELD.belowId, 16, 'hex');
  bytes.writeBigUInt64LE(BigInt(header.virtualSize), FIELD.virtualSize);
  bytes.writeUInt32LE(ALLOCATIONS.indexOf(header.allocation), FIELD.allocation);
  bytes.writeUInt32LE(header.sealed ? FLAG_SEALED : 0, FIELD.flags);
  bytes.writeUInt32LE(header.dataGeneration, FIELD.dataGeneration);
  bytes.writeBigUInt64LE(BigInt(header.generation), FIELD.generation);
  bytes.writeBigUInt64LE(BigInt(header.committedRecords), FIELD.committedRecords);
  bytes.writeBigUInt64LE(BigInt(header.mappedBlocks), FIELD.mappedBlocks);
  bytes.write(header.cacheEpoch, FIELD.cacheEpoch, 16, 'hex');
  bytes.writeUInt32LE(crc32(bytes.subarray(0, FIELD.crc)), FIELD.crc);
  return bytes;
}

/**
 * Decodes one header copy.
 * @returns undefined when it is no intact header (torn, never written).
 * @throws DiskError `not-supported` for an intact header of a newer version or with unknown values.
 */
export function decodeHeader(bytes: Buffer, path: string): DeltaHeader | undefined {
  if (!bytes.subarray(0, MAGIC.length).equals(MAGIC)) return undefined;
  if (bytes.readUInt32LE(FIELD.crc) !== crc32(bytes.subarray(0, FIELD.crc))) return undefined;
  const version = bytes.readUInt32LE(FIELD.version);
  if (version !== FORMAT_VERSION) {
    throw new DiskError(
      'not-supported',
      `${path}: delta format version ${version} is newer than this layerdisk's (${FORMAT_VERSION})`,
      { hint: 'upgrade layerdisk to open this store' },
    );
  }
  const belowKind = BELOW_KINDS[bytes.readUInt32LE(FIELD.belowKind)];
  const allocation = ALLOCATIONS[bytes.readUInt32LE(FIELD.allocation)];
  const flags = bytes.readUInt32LE(FIELD.flags);
  const blockSize = bytes.readUInt32LE(FIELD.blockSize);
  if (belowKind === undefined || allocation === undefined || flags > FLAG_SEALED) {
    throw new DiskError('not-supported', `${path}: header has values unknown to this layerdisk`);
  }
  if (blockSize !== BLOCK_SIZE) {
    throw new DiskError('not-supported', `${path}: block size ${blockSize} is not supported`);
  }
  const belowId = bytes.toString('hex', FIELD.belowId, FIELD.belowId + 16);
  return {
    id: bytes.toString('hex', FIELD.deltaId, FIELD.deltaId + 16),
    below: belowKind === 'none' ? { kind: 'none' } : { kind: belowKind, id: belowId },
    virtualSize: readCount(bytes, FIELD.virtualSize),
    allocation,
    sealed: (flags & FLAG_SEALED) !== 0,
    dataGeneration: bytes.readUInt32LE(FIELD.dataGeneration),
    generation: readCount(bytes, FIELD.generation),
    committedRecords: readCount(bytes, FIELD.committedRecords),
    mappedBlocks: readCount(bytes, FIELD.mappedBlocks),
    cacheEpoch: bytes.toString('hex', FIELD.cacheEpoch, FIELD.cacheEpoch + 16),
  };
}

/** 64 bits; those of an intact header are a safe integer. */
function readCount(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 2 ** 32;
}

export const RECORD_WRITE = 1;
export const RECORD_ZERO = 2;
/** Takes the place of a record that a power cut tore before it was acknowledged. */
export const RECORD_VOID = 3;
export type RecordKind = typeof RECORD_WRITE | typeof RECORD_ZERO | typeof RECORD_VOID;

const RECORD = {
  kind: 0,
  sequence: 4,
  blockLow: 8,
  blockHigh: 12,
  count: 16,
  slot: 20,
  reserved: 24,
  crc: 28,
} as const;
invariant(RECORD.crc + 4 === RECORD_SIZE, 'record size');

/**
 * One tuple: `count` blocks from `block` on, in consecutive slots from `slot` on, or reading as
 * zero.
 */
export interface TupleRecord {
  kind: RecordKind;
  block: number;
  count: number;
  /** Of the first block; 0 for a zero record. */
  slot: number;
}

/**
 * The checksum seed of a delta's records: a record copied in from another delta does not verify.
 */
export function recordSeed(id: DeltaId): number {
  return crc32(Buffer.from(id, 'hex'));
}

/** Writes RECORD_SIZE bytes at `at`; `sequence` is the record's index in the file. */
export function encodeRecord(
  bytes: Buffer,
  at: number,
  record: TupleRecord,
  place: { readonly sequence: number; readonly seed: number },
): void {
  bytes.writeUInt32LE(record.kind, at + RECORD.kind);
  bytes.writeUInt32LE(place.sequence % 2 ** 32, at + RECORD.sequence);
  bytes.writeUInt32LE(record.block % 2 ** 32, at + RECORD.blockLow);
  bytes.writeUInt32LE(Math.floor(record.block / 2 ** 32), at + RECORD.blockHigh);
  bytes.writeUInt32LE(record.count, at + RECORD.count);
  bytes.writeUInt32LE(record.slot, at + RECORD.slot);
  bytes.writeUInt32LE(0, at + RECORD.reserved);
  const body = bytes.subarray(at, at + RECORD.crc);
  bytes.writeUInt32LE(crc32(body, place.seed), at + RECORD.crc);
}

/**
 * Decodes the record at `at` into `out`.
 * @returns false when its checksum or sequence is wrong, or its values are impossible: torn or
 * never written.
 */
export function decodeRecord(
  bytes: Buffer,
  at: number,
  out: TupleRecord,
  place: { readonly sequence: number; readonly seed: number },
): boolean {
  const body = bytes.subarray(at, at + RECORD.crc);
  if (bytes.readUInt32LE(at + RECORD.crc) !== crc32(body, place.seed)) return false;
  if (bytes.readUInt32LE(at + RECORD.sequence) !== place.sequence % 2 ** 32) return false;
  const kind = bytes.readUInt32LE(at + RECORD.kind);
  if (kind !== RECORD_WRITE && kind !== RECORD_ZERO && kind !== RECORD_VOID) return false;
  out.kind = kind;
  out.block =
    bytes.readUInt32LE(at + RECORD.blockLow) + bytes.readUInt32LE(at + RECORD.blockHigh) * 2 ** 32;
  out.count = bytes.readUInt32LE(at + RECORD.count);
  out.slot = bytes.readUInt32LE(at + RECORD.slot);
  return out.count > 0 || kind === RECORD_VOID;
}

/** The records of a whole log, numbered from 0. */
export function encodeRecords(id: DeltaId, records: readonly TupleRecord[]): Buffer {
  const bytes = Buffer.alloc(records.length * RECORD_SIZE);
  const seed = recordSeed(id);
  for (const [sequence, record] of records.entries()) {
    encodeRecord(bytes, sequence * RECORD_SIZE, record, { sequence, seed });
  }
  return bytes;
}

/** A static delta maps every block to the slot of the same number from the start. */
export function staticRecords(id: DeltaId, blocks: number): Buffer {
  const records: TupleRecord[] = [];
  for (let block = 0; block < blocks; block += MAX_RECORD_BLOCKS) {
    const count = Math.min(MAX_RECORD_BLOCKS, blocks - block);
    records.push({ kind: RECORD_WRITE, block, count, slot: block });
  }
  return encodeRecords(id, records);
}
