/**
 * Addresses: 32-bit numbers that name one slot of one delta of a volume's chain.
 *
 * An address is a segment number (upper 19 bits) and a slot within it (lower 13). A segment stands
 * for 8,192 consecutive slots (32 MiB) of one delta. So a map entry needs four bytes at any depth,
 * and a volume can address 16 TiB of delta data. Segments are numbered from 1; addresses 0 and 1
 * stay free for the map's own use because segment 0 is never given out.
 *
 * Two small tables of index pages a volume: segment -> (delta, first slot), and for the head only,
 * slot -> segment.
 */
import { DiskError } from '../../common/errors.js';
import type { PagePool } from './page-pool.js';
import { PAGE_WORDS, VOLUME, VOLUME_WORDS } from './shared-memory.js';

const SLOT_BITS = 13;
export const SEGMENT_SLOTS = 1 << SLOT_BITS;
const SLOT_MASK = SEGMENT_SLOTS - 1;
const MAX_SEGMENTS = 2 ** (32 - SLOT_BITS);
const SEGMENTS_PER_PAGE_BITS = 9;
const SEGMENTS_PER_PAGE_MASK = 511;
const SLOT_SEGMENTS_PER_PAGE = 1024;

/** Slots from `address` to the end of its segment: a run must be cut there. */
export function slotsToSegmentEnd(address: number): number {
  return SEGMENT_SLOTS - (address & SLOT_MASK);
}

/** Segment tables of one volume; the row in shared memory says where they are. */
export class SlotSpace {
  /** Results of `resolve`. */
  delta = 0;
  slot = 0;

  readonly #pages: Uint32Array;
  readonly #volumes: Uint32Array;
  readonly #pool: PagePool;
  readonly #row: number;

  constructor(volumes: Uint32Array, pool: PagePool, volume: number) {
    this.#pages = pool.words;
    this.#volumes = volumes;
    this.#pool = pool;
    this.#row = volume * VOLUME_WORDS;
  }

  /** Which delta (index) and slot an address names, into `delta` and `slot`. */
  resolve(address: number): void {
    const pages = this.#pages;
    const at = this.#entryOf(address >>> SLOT_BITS);
    this.delta = pages[at]!;
    this.slot = pages[at + 1]! + (address & SLOT_MASK);
  }

  /**
   * Makes a segment for the slots of `delta` from `firstSlot` on.
   * @returns the address of its first slot.
   * @throws DiskError ENOSPC past 16 TiB of delta data in one chain.
   */
  addSegment(delta: number, firstSlot: number): number {
    const fresh = this.#volumes[this.#row + VOLUME.segmentCount]! + 1;
    const segment = fresh < MAX_SEGMENTS ? fresh : this.#takeFreed();
    if (segment === undefined) {
      throw new DiskError('failed', 'the chain holds more than 16 TiB of delta data', {
        errno: 'ENOSPC',
        hint: 'make a full clone, which starts with a chain of its own',
      });
    }
    const root = this.#volumes[this.#row + VOLUME.segmentRoot]! * PAGE_WORDS;
    const at = root + (segment >>> SEGMENTS_PER_PAGE_BITS);
    if (this.#pages[at] === 0) Atomics.store(this.#pages, at, this.#pool.allocate());
    const entry = this.#entryOf(segment);
    this.#pages[entry + 1] = firstSlot;
    Atomics.store(this.#pages, entry, delta);
    if (segment === fresh) this.#volumes[this.#row + VOLUME.segmentCount] = segment;
    return segment * SEGMENT_SLOTS;
  }

  /**
   * Frees the segments of deltas that no entry of the map names any more. Caller holds the log
   * lock, and nobody is inside the volume.
   */
  freeSegments(deltas: ReadonlySet<number>): void {
    for (const segment of this.#ownSegments()) {
      const entry = this.#entryOf(segment);
      if (deltas.has(this.#pages[entry]!)) this.#pages[entry] = 0;
    }
  }

  #takeFreed(): number | undefined {
    for (const segment of this.#ownSegments()) {
      if (this.#pages[this.#entryOf(segment)] === 0) return segment;
    }
    return undefined;
  }

  /** Those in pages that are no sealed map's. */
  *#ownSegments(): Generator<number> {
    const count = this.#volumes[this.#row + VOLUME.segmentCount]!;
    const inherited = fullPages(this.#volumes[this.#row + VOLUME.inheritedSegments]!);
    const first = Math.max(1, inherited << SEGMENTS_PER_PAGE_BITS);
    for (let segment = first; segment <= count; segment += 1) yield segment;
  }

  /** Index of the two words of a segment: delta, first slot. */
  #entryOf(segment: number): number {
    const root = this.#volumes[this.#row + VOLUME.segmentRoot]!;
    const page = this.#pages[root * PAGE_WORDS + (segment >>> SEGMENTS_PER_PAGE_BITS)]!;
    return page * PAGE_WORDS + (segment & SEGMENTS_PER_PAGE_MASK) * 2;
  }

  /**
   * The address of a slot of the head, making its segment when it has none yet. Caller holds the
   * log lock.
   */
  headAddress(head: number, slot: number): number {
    const index = Math.floor(slot / SEGMENT_SLOTS);
    const root = this.#volumes[this.#row + VOLUME.slotRoot]! * PAGE_WORDS;
    const at = root + Math.floor(index / SLOT_SEGMENTS_PER_PAGE);
    if (this.#pages[at] === 0) this.#pages[at] = this.#pool.allocate();
    const entry = this.#pages[at]! * PAGE_WORDS + (index % SLOT_SEGMENTS_PER_PAGE);
    if (this.#pages[entry] === 0) {
      this.#pages[entry] = this.addSegment(head, index * SEGMENT_SLOTS) / SEGMENT_SLOTS;
    }
    return this.#pages[entry]! * SEGMENT_SLOTS + (slot & SLOT_MASK);
  }

  /**
   * Begins with the segments of a sealed map: pages that are full are used in common, the last one
   * is copied. The row has an empty table.
   */
  inherit(from: number, count: number): void {
    const pages = this.#pages;
    const root = this.#volumes[this.#row + VOLUME.segmentRoot]! * PAGE_WORDS;
    const full = fullPages(count);
    for (let at = 0; at < full; at += 1) pages[root + at] = pages[from * PAGE_WORDS + at]!;
    this.#volumes[this.#row + VOLUME.inheritedSegments] = count;
    const last = pages[from * PAGE_WORDS + full]!;
    if (last !== 0) {
      const copy = this.#pool.allocate();
      pages.copyWithin(copy * PAGE_WORDS, last * PAGE_WORDS, (last + 1) * PAGE_WORDS);
      pages[root + full] = copy;
    }
    this.#volumes[this.#row + VOLUME.segmentCount] = count;
  }

  /**
   * Forgets slot -> segment of the head: a new head starts with none, on an empty page. Caller has
   * closed the gate.
   */
  resetHead(page: number): void {
    releaseTable(this.#pool, this.#volumes[this.#row + VOLUME.slotRoot]!, 0);
    this.#volumes[this.#row + VOLUME.slotRoot] = page;
  }

  /** Gives all table pages back that are not a sealed map's; the volume is closed. */
  release(): void {
    const row = this.#row;
    const segmentRoot = this.#volumes[row + VOLUME.segmentRoot]!;
    releaseTable(this.#pool, this.#volumes[row + VOLUME.slotRoot]!, 0);
    releaseSegments(this.#pool, segmentRoot, this.#volumes[row + VOLUME.inheritedSegments]!);
  }
}

/** Gives a segment table back, but for the pages that it has in common with another one. */
export function releaseSegments(pool: PagePool, root: number, inherited: number): void {
  releaseTable(pool, root, fullPages(inherited));
}

/** Pages of a table of so many segments (numbered from 1) that nothing can be added to. */
function fullPages(segments: number): number {
  return (segments + 1) >>> SEGMENTS_PER_PAGE_BITS;
}

function releaseTable(pool: PagePool, root: number, from: number): void {
  for (let at = from; at < PAGE_WORDS; at += 1) {
    const page = pool.words[root * PAGE_WORDS + at]!;
    if (page !== 0) pool.release(page);
  }
  pool.release(root);
}
