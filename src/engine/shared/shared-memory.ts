/**
 * The memory that all threads of the daemon share: index pages, open volumes, open deltas,
 * per-thread words.
 *
 * Every table is a plain SharedArrayBuffer of a fixed size that the kernel commits page by page on
 * first touch, so generous limits cost nothing until they are used (native-notes/shared-memory.md).
 */
import { totalmem } from 'node:os';
import { DiskError } from '../../common/errors.js';
import { GiB, MiB } from '../../common/units.js';
import { NOT_KEPT, SuspectRows } from './suspect-rows.js';

export const PAGE_WORDS = 1024;
export const MAX_VOLUMES = 65_536;
const MAX_DELTAS = 1 << 20;
export const MAX_THREADS = 64;

export const VOLUME_WORDS = 32;
/**
 * Words of one open volume. Counts and numbers are unsigned 32-bit; *_LOCK words belong to
 * `shared-mutex.ts`.
 */
export const VOLUME = {
  /** Grows each time the row is given to another volume: threads drop what they remember of it. */
  incarnation: 0,
  flags: 1,
  sizeLow: 2,
  sizeHigh: 3,
  /** 1 while closed: see `gate.ts`. */
  gate: 4,
  mapRoot: 5,
  mapLevels: 6,
  head: 7,
  /** Index of the base for `BaseTable`, 0 for none. */
  base: 8,
  logLock: 9,
  recordCount: 10,
  nextSlot: 11,
  commitLock: 12,
  committedCount: 13,
  /** 1 when something was written since the last flush began. */
  dirty: 14,
  /** 1 once a flush failed: nothing is acknowledged as durable any more. */
  failed: 15,
  mappedBlocks: 16,
  rangeLock: 17,
  segmentRoot: 18,
  segmentCount: 19,
  slotRoot: 20,
  recordSeed: 21,
  baseAllocatedLow: 22,
  baseAllocatedHigh: 23,
  /** Segments that a sealed map gave: pages of the table that are full of them are its own. */
  inheritedSegments: 24,
} as const;
export const VOLUME_READ_ONLY = 1;
export const VOLUME_STATIC = 2;

export const DELTA_WORDS = 8;
/** Words of one open delta. The checksums are there for those who verify what they read. */
export const DELTA = {
  dataFd: 0,
  tuplesFd: 1,
  sumsFd: 2,
  /** Slots that have a place in the checksums. */
  sumsSlots: 3,
  /** CRC-32C of the delta's id, with which that of a page begins. */
  sumsSeed: 4,
  /** Another number each time checksums are published: threads drop what they remember. */
  sumsStamp: 5,
} as const;
/** In the place of a descriptor. */
export const CLOSED = -1;

/** One cache line a thread, so that threads do not slow each other down. */
export const THREAD_WORDS = 32;
export const THREAD = {
  /** Volume index + 1 while a request on it is being served. */
  inside: 0,
  /** Reads and writes served, modulo 2^32: written by this thread alone, as an ordinary word. */
  served: 1,
  /** Range lock held: volume index + 1, then first block (two words) and end block (two words). */
  rangeVolume: 2,
  rangeStartLow: 3,
  rangeStartHigh: 4,
  rangeEndLow: 5,
  rangeEndHigh: 6,
} as const;

/** Counters a thread keeps for a volume: float64, so they never wrap. */
export const STAT_FIELDS = 8;
export const STAT = {
  reads: 0,
  readBytes: 1,
  writes: 2,
  writtenBytes: 3,
  flushes: 4,
  discards: 5,
} as const;

/** Words of the store's room for new blocks: see `allowance.ts`. */
export const ALLOWANCE_WORDS = 16;

/** What a thread is handed at its start. */
export interface SharedMemory {
  readonly pages: SharedArrayBuffer;
  readonly volumes: SharedArrayBuffer;
  readonly deltas: SharedArrayBuffer;
  readonly threads: SharedArrayBuffer;
  readonly stats: SharedArrayBuffer;
  readonly allowance: SharedArrayBuffer;
  readonly threadCount: number;
  /** For `SuspectRows`. */
  readonly suspectsFd: number;
}

/** Typed views over the shared memory, one set a thread. */
export interface SharedViews {
  readonly pages: Uint32Array;
  readonly volumes: Uint32Array;
  /** The same words for Atomics that wait. */
  readonly volumeWords: Int32Array;
  readonly pageWords: Int32Array;
  readonly deltas: Int32Array;
  readonly threads: Int32Array;
  readonly stats: Float64Array;
  readonly allowance: Int32Array;
  readonly threadCount: number;
  readonly suspects: SuspectRows;
}

/** A typed array of halves of words can be no longer. */
const LARGEST_POOL = 8 * GiB - MiB;
const SMALLEST_POOL = 64 * MiB;

/**
 * @param threadCount all threads that may touch volumes: the main thread, I/O threads, background
 * threads.
 * @param suspectsFd a file that outlives this process, for `SuspectRows`.
 * @throws DiskError `failed` when not even a small index fits into memory.
 */
export function createSharedMemory(threadCount: number, suspectsFd = NOT_KEPT): SharedMemory {
  return {
    pages: allocatePool(Math.min(LARGEST_POOL, totalmem() / 2), 'the block index'),
    volumes: new SharedArrayBuffer(MAX_VOLUMES * VOLUME_WORDS * 4),
    deltas: new SharedArrayBuffer(MAX_DELTAS * DELTA_WORDS * 4),
    threads: new SharedArrayBuffer(MAX_THREADS * THREAD_WORDS * 4),
    stats: new SharedArrayBuffer(MAX_VOLUMES * threadCount * STAT_FIELDS * 8),
    allowance: new SharedArrayBuffer(ALLOWANCE_WORDS * 4),
    threadCount,
    suspectsFd,
  };
}

/**
 * Asks for address space, taking less where the host's overcommit policy refuses.
 * @param wanted bytes.
 * @param purpose what the memory is for, in words.
 * @throws DiskError `failed` when not even `SMALLEST_POOL` is to be had.
 */
export function allocatePool(wanted: number, purpose: string): SharedArrayBuffer {
  let size = Math.floor(wanted / MiB) * MiB;
  for (;;) {
    try {
      return new SharedArrayBuffer(size);
    } catch (error) {
      if (size <= SMALLEST_POOL) {
        throw new DiskError('failed', `not enough memory for ${purpose}`, { cause: error });
      }
      size = Math.floor(size / 2 / MiB) * MiB;
    }
  }
}

export function viewSharedMemory(memory: SharedMemory): SharedViews {
  return {
    pages: new Uint32Array(memory.pages),
    pageWords: new Int32Array(memory.pages, 0, PAGE_WORDS),
    volumes: new Uint32Array(memory.volumes),
    volumeWords: new Int32Array(memory.volumes),
    deltas: new Int32Array(memory.deltas),
    threads: new Int32Array(memory.threads),
    stats: new Float64Array(memory.stats),
    allowance: new Int32Array(memory.allowance),
    threadCount: memory.threadCount,
    suspects: new SuspectRows(memory.suspectsFd),
  };
}
