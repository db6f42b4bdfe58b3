/**
 * Reading slots of sealed deltas against their checksums, for a daemon that was started with
 * `--verify-reads`: bytes that are not what was sealed are EIO, not an answer. One for each thread.
 *
 * What has no checksum is read as it is: heads, deltas that were sealed some seconds ago, slots
 * whose page of checksums is itself damaged (which is reported).
 */
import { readSync } from 'node:fs';
import { crc32cOf } from '../../common/checksum.js';
import { DiskError } from '../../common/errors.js';
import { BLOCK_SIZE } from '../../common/units.js';
import { readPadded } from '../../storage/exact-io.js';
import { sumsPageOffset } from '../delta/sums-file.js';
import { NOT_COVERED, SUMS_PAGE, SUMS_PER_PAGE, slotSum } from '../delta/sums-layout.js';
import { CLOSED, DELTA, DELTA_WORDS, type SharedViews } from '../shared/shared-memory.js';

/** Pages of checksums that a thread keeps: 4 KiB each, for 4 MiB of data each. */
const MOST_PAGES = 1024;
const PAGE_NUMBER = Buffer.alloc(4);

/** What a thread found while it read. */
export interface FoundRot {
  /** Index of the delta among the open ones. */
  readonly delta: number;
  readonly slot: number;
  /**
   * `data`: refused. `sums`: the page of checksums for this slot; its data was served unchecked.
   */
  readonly part: 'data' | 'sums';
}

/** What is read of a delta's data file: `length` bytes that begin `skip` bytes into a slot. */
interface Place {
  readonly slot: number;
  readonly skip: number;
  readonly length: number;
  /** See `RunSources`: wrong bytes are said when each run is read alone, if they are one's. */
  readonly isSpan: boolean;
}

interface Page {
  readonly stamp: number;
  /** Undefined when it is damaged. */
  readonly sums: Buffer | undefined;
}

export class ReadVerifier {
  readonly #views: SharedViews;
  readonly #report: (rot: FoundRot) => void;
  /** By delta index and page; the oldest first. */
  readonly #pages = new Map<number, Page>();
  #scratch = Buffer.alloc(0);

  constructor(views: SharedViews, report: (rot: FoundRot) => void) {
    this.#views = views;
    this.#report = report;
  }

  /** @throws DiskError `damaged`, EIO, for bytes that are not what was sealed. */
  read(delta: number, place: Place, target: Buffer, targetOffset: number): void {
    const { slot, skip, length, isSpan } = place;
    const data = this.#word(delta, DELTA.dataFd);
    if (this.#word(delta, DELTA.sumsFd) === CLOSED) {
      readPadded(data, target, targetOffset, length, slot * BLOCK_SIZE + skip, 'delta.read');
      return;
    }
    const count = Math.ceil((skip + length) / BLOCK_SIZE);
    const whole = count * BLOCK_SIZE;
    if (whole === length) {
      readPadded(data, target, targetOffset, length, slot * BLOCK_SIZE, 'delta.read');
      this.#verify(delta, { slot, count, isSpan }, target, targetOffset);
      return;
    }
    // A part of a block can only be judged with the rest of it.
    if (this.#scratch.length < whole) this.#scratch = Buffer.alloc(whole);
    readPadded(data, this.#scratch, 0, whole, slot * BLOCK_SIZE, 'delta.read');
    this.#verify(delta, { slot, count, isSpan }, this.#scratch, 0);
    this.#scratch.copy(target, targetOffset, skip, skip + length);
  }

  #word(delta: number, field: number): number {
    return this.#views.deltas[delta * DELTA_WORDS + field]!;
  }

  #verify(
    delta: number,
    { slot: first, count, isSpan }: Pick<Place, 'slot' | 'isSpan'> & { readonly count: number },
    bytes: Buffer,
    offset: number,
  ): void {
    const slots = this.#word(delta, DELTA.sumsSlots) >>> 0;
    const end = Math.min(first + count, slots);
    for (let slot = first; slot < end; ) {
      const page = Math.floor(slot / SUMS_PER_PAGE);
      const pageEnd = Math.min(end, (page + 1) * SUMS_PER_PAGE);
      const sums = this.#page(delta, page);
      if (sums === undefined) this.#report({ delta, slot, part: 'sums' });
      for (; slot < pageEnd; slot += 1) {
        if (sums === undefined) continue;
        const known = sums.readUInt32LE((slot - page * SUMS_PER_PAGE) * 4);
        if (known === NOT_COVERED) continue;
        const at = offset + (slot - first) * BLOCK_SIZE;
        if (slotSum(bytes.subarray(at, at + BLOCK_SIZE)) === known) continue;
        if (!isSpan) this.#report({ delta, slot, part: 'data' });
        throw new DiskError('damaged', 'these blocks are not what they were when sealed', {
          errno: 'EIO',
          hint: 'layerdisk check --deep names them and who sees them',
        });
      }
    }
  }

  #page(delta: number, page: number): Buffer | undefined {
    // Of deltas and pages there are fewer than 2^20 and 2^22.
    const key = delta * 2 ** 22 + page;
    const stamp = this.#word(delta, DELTA.sumsStamp);
    const known = this.#pages.get(key);
    if (known?.stamp === stamp) return known.sums;
    this.#pages.delete(key);
    if (this.#pages.size >= MOST_PAGES) {
      const [oldest] = this.#pages.keys();
      if (oldest !== undefined) this.#pages.delete(oldest);
    }
    const sums = this.#load(delta, page);
    this.#pages.set(key, { stamp, sums });
    return sums;
  }

  /** @returns undefined when the page is damaged or the host cannot read it. */
  #load(delta: number, page: number): Buffer | undefined {
    const bytes = Buffer.alloc(SUMS_PAGE);
    try {
      readSync(this.#word(delta, DELTA.sumsFd), bytes, 0, SUMS_PAGE, sumsPageOffset(page));
    } catch {
      // Reported like a damaged page: either way these slots cannot be judged.
      return undefined;
    }
    PAGE_NUMBER.writeUInt32LE(page);
    const seed = crc32cOf(PAGE_NUMBER, this.#word(delta, DELTA.sumsSeed) >>> 0);
    const body = bytes.subarray(0, SUMS_PAGE - 4);
    return crc32cOf(body, seed) === bytes.readUInt32LE(SUMS_PAGE - 4) ? bytes : undefined;
  }
}
