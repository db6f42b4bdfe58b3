/** A delta's own blocks and their slots, as its committed records say: an index for long jobs. */
import { closeSync } from 'node:fs';
import { BLOCK_SIZE, divCeil, GiB } from '../../common/units.js';
import { requireStored } from '../../storage/stored-file.js';
import type { DeltaFiles } from '../delta/delta-files.js';
import { readHeaderFrom } from '../delta/delta-header.js';
import { type DeltaHeader, MAX_RECORD_BLOCKS, RECORD_ZERO } from '../delta/delta-layout.js';
import { NO_EPOCH } from '../delta/header-copies.js';
import { SlotSet } from '../delta/slot-set.js';
import { type ApplyRecord, type ScanResult, scanTuples } from '../delta/tuple-scan.js';
import type { DeltaId } from '../delta-id.js';
import { ChainMap } from '../shared/chain-map.js';
import { DATA, levelsFor, UNMAPPED } from '../shared/map-words.js';
import { NodePool } from '../shared/node-pool.js';
import { PagePool } from '../shared/page-pool.js';
import { PAGE_WORDS } from '../shared/shared-memory.js';

/** Most address space for an index; only what is touched takes memory. */
const POOL_BYTES = 4 * GiB;
const PAGE_BYTES = PAGE_WORDS * 4;
/** Addresses of a map are above those that mean something else. */
const FIRST_ADDRESS = 2;

/** No disk needs more levels: 64 TiB have 2^34 blocks. */
const MOST_LEVELS = 3;
/** A record splits at most two entries on each level, down to two leaves. */
const PAGES_A_RECORD = 2 * (MOST_LEVELS + 1);
/** An interior page over runs stands for at least half so many blocks. */
const BLOCKS_A_PAGE = 2 ** 18;
/** Pages of chunks that are not full yet, and others. */
const SPARE_PAGES = 24;

/** Blocks in neighbouring slots. */
export interface SlotExtent {
  readonly block: number;
  readonly slot: number;
  readonly count: number;
}

/** Hands every committed record to `apply`. @throws DiskError `damaged` as `scanTuples`. */
export function scanCommitted(files: DeltaFiles, id: DeltaId, apply: ApplyRecord): ScanResult {
  const path = files.tuplesPath(id);
  const fd = requireStored(path, 'r');
  try {
    return scanTuples(fd, path, readHeaderFrom(fd, path, id), NO_EPOCH, apply);
  } finally {
    closeSync(fd);
  }
}

export class DeltaIndex {
  /** One past the highest slot that a record names. */
  readonly slots: number;
  readonly #map: ChainMap;
  readonly #blocks: number;

  private constructor(map: ChainMap, blocks: number, slots: number) {
    this.#map = map;
    this.#blocks = blocks;
    this.slots = slots;
  }

  /** @throws DiskError `damaged` when a record is. */
  static read(files: DeltaFiles, { id, virtualSize }: DeltaHeader): DeltaIndex {
    // A delta from before the disk was made smaller may know blocks past its end.
    let blocks = divCeil(virtualSize, BLOCK_SIZE);
    let pages = SPARE_PAGES;
    scanCommitted(files, id, ({ block, count }) => {
      blocks = Math.max(blocks, block + count);
      pages += PAGES_A_RECORD + Math.ceil(count / BLOCKS_A_PAGE);
    });
    const memory = new SharedArrayBuffer(Math.min(POOL_BYTES, pages * PAGE_BYTES));
    const words = new Uint32Array(memory);
    const pool = new PagePool({ pages: words, pageWords: new Int32Array(memory, 0, PAGE_WORDS) });
    const place = { root: pool.allocate(), levels: levelsFor(blocks) };
    const map = new ChainMap(new NodePool(pool), place);
    const { nextSlot } = scanCommitted(files, id, ({ kind, block, count, slot }) => {
      if (kind === RECORD_ZERO) map.set(block, count, UNMAPPED);
      else map.set(block, count, DATA, slot + FIRST_ADDRESS);
    });
    return new DeltaIndex(map, blocks, nextSlot);
  }

  /** What is stored of the blocks in [block, end), in their order. */
  *extents(block = 0, end = this.#blocks): Generator<SlotExtent> {
    const map = this.#map;
    let at = block;
    while (at < Math.min(end, this.#blocks)) {
      map.find(at, Math.min(end - at, this.#blocks - at, MAX_RECORD_BLOCKS));
      const { kind, address, count } = map;
      if (kind === DATA) yield { block: at, slot: address - FIRST_ADDRESS, count };
      at += count;
    }
  }

  /** All slots that hold something. */
  slotsInUse(): SlotSet {
    const used = new SlotSet(this.slots);
    for (const { slot, count } of this.extents()) used.add(slot, count);
    return used;
  }
}
