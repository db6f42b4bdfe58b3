/** Growth of a head: taking slots, appending records, keeping the map true. */
import { DiskError } from '../../common/errors.js';
import { writeExact } from '../../storage/exact-io.js';
import {
  encodeRecord,
  MAX_SLOTS,
  RECORD_SIZE,
  RECORD_WRITE,
  RECORD_ZERO,
  RECORDS_OFFSET,
  type TupleRecord,
} from '../delta/delta-layout.js';
import type { ChainMap } from '../shared/chain-map.js';
import { DATA, UNMAPPED, ZERO } from '../shared/map-words.js';
import { type SharedViews, VOLUME } from '../shared/shared-memory.js';
import { lockMutex, unlockMutex } from '../shared/shared-mutex.js';
import { SEGMENT_SLOTS, type SlotSpace } from '../shared/slot-space.js';
import type { VolumeRow } from '../shared/volume-row.js';

/** What a thread needs to write to one volume's head. */
export class HeadLog {
  readonly #views: SharedViews;
  readonly #row: VolumeRow;
  readonly #map: ChainMap;
  readonly #space: SlotSpace;
  readonly #bytes = Buffer.alloc(RECORD_SIZE);
  readonly #record: TupleRecord = { kind: RECORD_WRITE, block: 0, count: 0, slot: 0 };

  constructor(views: SharedViews, row: VolumeRow, map: ChainMap, space: SlotSpace) {
    this.#views = views;
    this.#row = row;
    this.#map = map;
    this.#space = space;
  }

  /**
   * Takes `count` fresh consecutive slots. @returns the first. @throws DiskError ENOSPC past 16
   * TiB.
   */
  takeSlots(count: number): number {
    this.#lock();
    try {
      const slot = this.#row.get(VOLUME.nextSlot);
      if (slot + count > MAX_SLOTS) {
        throw new DiskError('failed', 'the head delta holds 16 TiB already', {
          errno: 'ENOSPC',
          hint: 'take a snapshot: writing goes on in a new delta',
        });
      }
      this.#row.set(VOLUME.nextSlot, slot + count);
      return slot;
    } finally {
      this.#unlock();
    }
  }

  /**
   * Gives slots back whose write failed, if nobody took further ones since; else they stay unused.
   */
  returnSlots(slot: number, count: number): void {
    this.#lock();
    this.#returnSlots(slot, count);
    this.#unlock();
  }

  #returnSlots(slot: number, count: number): void {
    if (this.#row.get(VOLUME.nextSlot) === slot + count) this.#row.set(VOLUME.nextSlot, slot);
  }

  /** Records that blocks now live in slots whose data is already written, and maps them. */
  appendWrite(block: number, count: number, slot: number): void {
    this.#lock();
    try {
      const head = this.#row.get(VOLUME.head);
      try {
        // Memory first: it can run out, and then no record may stand that the map does not know.
        this.#map.prepareToSet(count);
        for (let done = 0; done < count; done += SEGMENT_SLOTS) {
          this.#space.headAddress(head, slot + done);
        }
        this.#space.headAddress(head, slot + count - 1);
        this.#append(RECORD_WRITE, block, count, slot);
      } catch (error) {
        this.#returnSlots(slot, count);
        throw error;
      }
      for (let done = 0; done < count; ) {
        const at = slot + done;
        const part = Math.min(count - done, SEGMENT_SLOTS - (at % SEGMENT_SLOTS));
        this.#mapped(this.#map.set(block + done, part, DATA, this.#space.headAddress(head, at)));
        done += part;
      }
    } finally {
      this.#unlock();
    }
  }

  /** Records that blocks read as zero; `covering`: something below them must stay hidden. */
  appendZero(block: number, count: number, covering: boolean): void {
    this.#lock();
    try {
      this.#map.prepareToSet(count);
      this.#append(RECORD_ZERO, block, count, 0);
      this.#mapped(this.#map.set(block, count, covering ? ZERO : UNMAPPED));
    } finally {
      this.#unlock();
    }
  }

  #append(
    kind: typeof RECORD_WRITE | typeof RECORD_ZERO,
    block: number,
    count: number,
    slot: number,
  ): void {
    const row = this.#row;
    const sequence = row.get(VOLUME.recordCount);
    this.#record.kind = kind;
    this.#record.block = block;
    this.#record.count = count;
    this.#record.slot = slot;
    encodeRecord(this.#bytes, 0, this.#record, { sequence, seed: row.get(VOLUME.recordSeed) });
    const offset = RECORDS_OFFSET + sequence * RECORD_SIZE;
    writeExact(row.headTuplesFd, this.#bytes, 0, RECORD_SIZE, offset, 'head.append');
    row.set(VOLUME.recordCount, sequence + 1);
  }

  #mapped(grown: number): void {
    this.#row.set(VOLUME.mappedBlocks, this.#row.get(VOLUME.mappedBlocks) + grown);
  }

  #lock(): void {
    lockMutex(this.#views.volumeWords, this.#row.word(VOLUME.logLock));
  }

  #unlock(): void {
    unlockMutex(this.#views.volumeWords, this.#row.word(VOLUME.logLock));
  }
}
