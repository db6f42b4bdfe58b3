/**
 * Writes and discards on a volume's head. The caller is inside the gate.
 *
 * A block that the head holds is overwritten in place, without a lock. Everything else takes new
 * slots, under a lock on its block range: data first, then the record, then the map. A partial
 * block is read, merged and written whole under the same lock, so two partial writes to one new
 * block never lose each other. New slots of writes are taken from the store's allowance; those of
 * discards are not, which must go on when the store is full.
 */
import { BLOCK_SIZE } from '../../common/units.js';
import { ZEROES } from '../../common/zeroes.js';
import { writeExact } from '../../storage/exact-io.js';
import { reflink } from '../../storage/reflink.js';
import { punchHole, zeroRange } from '../../storage/sparse-space.js';
import { MAX_RECORD_BLOCKS } from '../delta/delta-layout.js';
import type { Extent } from '../disk-image.js';
import { DATA, UNMAPPED, ZERO } from '../shared/map-words.js';
import { VOLUME } from '../shared/shared-memory.js';
import { slotsToSegmentEnd } from '../shared/slot-space.js';
import { HeadLog } from './head-log.js';
import type { ThreadContext, Volume } from './volume.js';

export class HeadWriter {
  readonly #context: ThreadContext;
  readonly #volume: Volume;
  readonly #log: HeadLog;
  readonly #scratch = Buffer.alloc(BLOCK_SIZE);
  readonly #extent: Extent = { state: 'unallocated', length: 0 };

  constructor(context: ThreadContext, volume: Volume) {
    this.#context = context;
    this.#volume = volume;
    this.#log = new HeadLog(context.views, volume.row, volume.map, volume.space);
  }

  /**
   * @throws DiskError ENOSPC: the blocks that are new are untouched then, and nothing of them is
   * recorded.
   */
  write(source: Buffer, sourceOffset: number, offset: number, length: number): void {
    this.#write(source, sourceOffset, offset, length, true);
  }

  #write(
    source: Buffer,
    sourceOffset: number,
    offset: number,
    length: number,
    rationed: boolean,
  ): void {
    let done = 0;
    while (done < length) {
      const at = offset + done;
      const bytes = this.#writeInPlace(source, sourceOffset + done, at, length - done);
      if (bytes === 0) {
        this.#writeLocked(source, sourceOffset + done, at, length - done, rationed);
        break;
      }
      done += bytes;
    }
    this.#volume.row.markDirty();
  }

  /**
   * Overwrites what the head holds from `offset` on. @returns how many bytes that were, 0 when it
   * holds nothing there.
   */
  #writeInPlace(source: Buffer, sourceOffset: number, offset: number, length: number): number {
    const { map, space, row } = this.#volume;
    const inner = offset % BLOCK_SIZE;
    map.find((offset - inner) / BLOCK_SIZE, Math.ceil((inner + length) / BLOCK_SIZE));
    if (map.kind !== DATA) return 0;
    space.resolve(map.address);
    if (space.delta !== row.get(VOLUME.head)) return 0;
    const blocks = Math.min(map.count, slotsToSegmentEnd(map.address));
    const bytes = Math.min(length, blocks * BLOCK_SIZE - inner);
    const to = space.slot * BLOCK_SIZE + inner;
    writeExact(row.headDataFd, source, sourceOffset, bytes, to, 'head.overwrite');
    return bytes;
  }

  #writeLocked(
    source: Buffer,
    sourceOffset: number,
    offset: number,
    length: number,
    rationed: boolean,
  ): void {
    const { ranges } = this.#context;
    const first = Math.floor(offset / BLOCK_SIZE);
    ranges.acquire(this.#volume.row.index, first, Math.ceil((offset + length) / BLOCK_SIZE));
    try {
      let done = 0;
      while (done < length) {
        const at = offset + done;
        // Another thread may have mapped part of the range while this one waited for the lock.
        const inPlace = this.#writeInPlace(source, sourceOffset + done, at, length - done);
        done += inPlace;
        if (inPlace > 0) continue;
        const block = Math.floor(at / BLOCK_SIZE);
        const limit = Math.ceil((offset + length) / BLOCK_SIZE) - block;
        const count = this.#notInHead(block, limit);
        const bytes = Math.min(length - done, (block + count) * BLOCK_SIZE - at);
        if (rationed) this.#writeRationed(source, sourceOffset + done, at, bytes);
        else this.#writeNew(source, sourceOffset + done, at, bytes);
        done += bytes;
      }
    } finally {
      ranges.release();
    }
  }

  /** How many blocks from `block` on the head does not hold; at least 1, at most `limit`. */
  #notInHead(block: number, limit: number): number {
    const { map, space, row } = this.#volume;
    const head = row.get(VOLUME.head);
    let count = 0;
    while (count < limit) {
      map.find(block + count, limit - count);
      let run = map.count;
      if (map.kind === DATA) {
        space.resolve(map.address);
        if (space.delta === head) break;
        run = Math.min(run, slotsToSegmentEnd(map.address));
      }
      count += run;
    }
    return Math.max(1, count);
  }

  #writeRationed(source: Buffer, sourceOffset: number, offset: number, length: number): void {
    const { allowance } = this.#context;
    const blocks = Math.ceil((offset + length) / BLOCK_SIZE) - Math.floor(offset / BLOCK_SIZE);
    allowance.take(blocks);
    try {
      this.#writeNew(source, sourceOffset, offset, length);
    } finally {
      allowance.settle(blocks);
    }
  }

  /**
   * Writes a range that the head holds nothing of into fresh slots, and records them as one extent.
   */
  #writeNew(source: Buffer, sourceOffset: number, offset: number, length: number): void {
    const block = Math.floor(offset / BLOCK_SIZE);
    const count = Math.ceil((offset + length) / BLOCK_SIZE) - block;
    const slot = this.#log.takeSlots(count);
    try {
      this.#writeSlots(source, sourceOffset, offset, length, slot);
    } catch (error) {
      this.#log.returnSlots(slot, count);
      throw error;
    }
    this.#log.appendWrite(block, count, slot);
  }

  /** Fills the slots from `slot` on with the blocks that [offset, offset + length) touches. */
  #writeSlots(
    source: Buffer,
    sourceOffset: number,
    offset: number,
    length: number,
    slot: number,
  ): void {
    const fd = this.#volume.row.headDataFd;
    let done = 0;
    let target = slot;
    while (done < length) {
      const inner = (offset + done) % BLOCK_SIZE;
      const whole = inner === 0 ? Math.floor((length - done) / BLOCK_SIZE) : 0;
      if (whole > 0) {
        const bytes = whole * BLOCK_SIZE;
        writeExact(fd, source, sourceOffset + done, bytes, target * BLOCK_SIZE, 'head.write');
        done += bytes;
        target += whole;
        continue;
      }
      const bytes = Math.min(length - done, BLOCK_SIZE - inner);
      this.#volume.readInside(this.#scratch, 0, offset + done - inner, BLOCK_SIZE);
      source.copy(this.#scratch, inner, sourceOffset + done, sourceOffset + done + bytes);
      writeExact(fd, this.#scratch, 0, BLOCK_SIZE, target * BLOCK_SIZE, 'head.write');
      done += bytes;
      target += 1;
    }
  }

  /**
   * Takes slots for blocks and lets them share a range of another file. @returns false when the
   * host cannot.
   */
  shareBlocks(block: number, count: number, place: { fd: number; offset: number }): boolean {
    const slot = this.#log.takeSlots(count);
    const range = {
      sourceFd: place.fd,
      sourceOffset: place.offset,
      targetFd: this.#volume.row.headDataFd,
      targetOffset: slot * BLOCK_SIZE,
      length: count * BLOCK_SIZE,
    };
    const shared = reflink(range, 'head.share');
    if (!shared) {
      this.#log.returnSlots(slot, count);
      return false;
    }
    this.#log.appendWrite(block, count, slot);
    this.#volume.row.markDirty();
    return true;
  }

  discard(offset: number, length: number): void {
    const end = offset + length;
    const firstWhole = Math.ceil(offset / BLOCK_SIZE);
    // The last block of a disk may be short: a discard up to the disk's end takes it whole.
    const lastWhole =
      end >= this.#volume.size ? Math.ceil(end / BLOCK_SIZE) : Math.floor(end / BLOCK_SIZE);
    if (firstWhole >= lastWhole) {
      this.#zeroPart(offset, length);
    } else {
      this.#zeroPart(offset, firstWhole * BLOCK_SIZE - offset);
      this.#discardBlocks(firstWhole, lastWhole);
      this.#zeroPart(lastWhole * BLOCK_SIZE, end - lastWhole * BLOCK_SIZE);
    }
    this.#volume.row.markDirty();
  }

  /**
   * Zeroes part of a block (or of two neighbours): stored only where something else could be read.
   */
  #zeroPart(offset: number, length: number): void {
    let done = 0;
    while (done < length) {
      const at = offset + done;
      const bytes = Math.min(length - done, BLOCK_SIZE - (at % BLOCK_SIZE));
      this.#volume.extentInside(at, bytes, this.#extent);
      const part = this.#extent.length;
      if (this.#extent.state === 'data') this.#write(ZEROES, 0, at, part, false);
      done += part;
    }
  }

  #discardBlocks(first: number, end: number): void {
    const { ranges } = this.#context;
    ranges.acquire(this.#volume.row.index, first, end);
    try {
      let block = first;
      while (block < end)
        block += this.#discardRun(block, Math.min(end - block, MAX_RECORD_BLOCKS));
    } finally {
      ranges.release();
    }
  }

  /** Discards the first run of one kind. @returns its blocks. */
  #discardRun(block: number, limit: number): number {
    const { map, space, row } = this.#volume;
    map.find(block, limit);
    const { kind, address } = map;
    let count = map.count;
    if (kind === ZERO) return count;
    if (kind === UNMAPPED) {
      this.#coverBase(block, count);
      return count;
    }
    count = Math.min(count, slotsToSegmentEnd(address));
    space.resolve(address);
    const inHead = space.delta === row.get(VOLUME.head);
    const slot = space.slot;
    if (inHead && row.isStatic) {
      zeroRange(row.headDataFd, slot * BLOCK_SIZE, count * BLOCK_SIZE, 'head.zero');
      return count;
    }
    this.#log.appendZero(block, count, this.#baseData(block, block + count) >= 0);
    if (inHead) {
      punchHole(row.headDataFd, slot * BLOCK_SIZE, count * BLOCK_SIZE, 'head.punch');
    }
    return count;
  }

  /**
   * Hides what the base holds in a range that no delta maps; stores nothing where it holds nothing.
   */
  #coverBase(block: number, count: number): void {
    const end = block + count;
    const start = this.#baseData(block, end);
    if (start >= 0) this.#log.appendZero(start, end - start, true);
  }

  /** The first block in [block, end) that the base has data in, -1 for none. */
  #baseData(block: number, end: number): number {
    const { base } = this.#volume;
    if (base === undefined) return -1;
    let at = block * BLOCK_SIZE;
    const stop = Math.min(end * BLOCK_SIZE, base.virtualSize);
    while (at < stop) {
      base.extentAt(at, stop - at, this.#extent);
      if (this.#extent.state === 'data') return Math.floor(at / BLOCK_SIZE);
      at += this.#extent.length;
    }
    return -1;
  }
}
