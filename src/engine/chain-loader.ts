/**
 * Opening a chain: every delta from the bottom up is read into the map of a volume row. Main thread
 * only.
 */

import { DiskError } from '../common/errors.js';
import { BLOCK_SIZE, divCeil } from '../common/units.js';
import type { BaseSpec } from './base.js';
import { ChainMap, DATA, levelsFor, UNMAPPED, ZERO } from './chain-map.js';
import type { DeltaFiles } from './delta-files.js';
import type { DeltaId } from './delta-id.js';
import { type DeltaHeader, RECORD_ZERO, recordSeed, type TupleRecord } from './delta-layout.js';
import type { DeltaTable, OpenDelta } from './delta-table.js';
import type { PagePool } from './page-pool.js';
import {
  type SharedViews,
  VOLUME,
  VOLUME_READ_ONLY,
  VOLUME_STATIC,
  VOLUME_WORDS,
} from './shared-memory.js';
import { SEGMENT_SLOTS, SlotSpace } from './slot-space.js';
import { VolumeRow } from './volume-row.js';

/** Longest chain of deltas (design: stated limits). */
export const MAX_DEPTH = 1000;

export interface LoadedChain {
  /** Top first. */
  readonly deltas: readonly DeltaId[];
  readonly base: BaseSpec | undefined;
  readonly writable: boolean;
}

export interface ChainTools {
  readonly views: SharedViews;
  readonly pool: PagePool;
  readonly files: DeltaFiles;
  readonly table: DeltaTable;
}

/**
 * Headers from `top` down to the bottom.
 * @throws DiskError `damaged` for a cycle or a missing delta, `not-supported` past MAX_DEPTH.
 */
export function walkChain(files: DeltaFiles, top: DeltaId): DeltaHeader[] {
  const headers: DeltaHeader[] = [];
  const seen = new Set<DeltaId>();
  let id: DeltaId | undefined = top;
  while (id !== undefined) {
    if (seen.has(id)) {
      throw new DiskError('damaged', `delta ${id} is its own ancestor`, { errno: 'EIO' });
    }
    if (headers.length >= MAX_DEPTH) {
      throw new DiskError('not-supported', `the chain is deeper than ${MAX_DEPTH} deltas`, {
        errno: 'EIO',
        hint: 'make a full clone, which starts with a chain of its own',
      });
    }
    seen.add(id);
    const header: DeltaHeader = files.readHeader(id).current;
    headers.push(header);
    id = header.below.kind === 'delta' ? header.below.id : undefined;
  }
  return headers;
}

/**
 * Fills the (cleared) row `index` with the chain under `headers[0]`; on failure nothing stays open.
 */
export function loadChain(
  tools: ChainTools,
  index: number,
  headers: readonly DeltaHeader[],
  options: {
    readonly writable: boolean;
    readonly base: BaseSpec | undefined;
    readonly baseIndex: number;
  },
): LoadedChain {
  const { views, pool, table } = tools;
  const top = headers[0]!;
  const row = new VolumeRow(views, index);
  clearRow(views, index);
  row.size = top.virtualSize;
  row.baseAllocated = options.base?.allocatedSize ?? 0;
  row.set(VOLUME.base, options.baseIndex);
  row.set(VOLUME.mapLevels, levelsFor(divCeil(top.virtualSize, BLOCK_SIZE)));
  row.set(VOLUME.mapRoot, pool.allocate());
  row.set(VOLUME.segmentRoot, pool.allocate());
  row.set(VOLUME.slotRoot, pool.allocate());
  row.set(VOLUME.recordSeed, recordSeed(top.id));
  const isStatic = top.allocation === 'static' ? VOLUME_STATIC : 0;
  row.set(VOLUME.flags, (options.writable ? 0 : VOLUME_READ_ONLY) | isStatic);
  const used: DeltaId[] = [];
  try {
    for (const header of [...headers].reverse()) {
      const delta = table.use(header);
      used.push(header.id);
      const isHead = options.writable && header.id === top.id;
      applyDelta(tools, row, delta, isHead);
    }
  } catch (error) {
    for (const id of used) table.release(id);
    releaseMaps(tools, index);
    throw error;
  }
  return {
    deltas: headers.map((header) => header.id),
    base: options.base,
    writable: options.writable,
  };
}

/** Brings one delta's records into the map. */
function applyDelta(tools: ChainTools, row: VolumeRow, delta: OpenDelta, isHead: boolean): void {
  const { views, pool, table } = tools;
  const place = { root: row.get(VOLUME.mapRoot), levels: row.get(VOLUME.mapLevels) };
  const map = new ChainMap(views.pages, pool, place);
  const space = new SlotSpace(views.pages, views.volumes, pool, row.index);
  const segments = new Map<number, number>();
  const addressOf = (slot: number): number => {
    if (isHead) return space.headAddress(delta.index, slot);
    const segment = Math.floor(slot / SEGMENT_SLOTS);
    let start = segments.get(segment);
    if (start === undefined) {
      start = space.addSegment(delta.index, segment * SEGMENT_SLOTS);
      segments.set(segment, start);
    }
    return start + (slot % SEGMENT_SLOTS);
  };
  const blocks = divCeil(row.size, BLOCK_SIZE);
  const hidden = row.get(VOLUME.base) === 0 ? UNMAPPED : ZERO;
  let mapped = row.get(VOLUME.mappedBlocks);
  const scan = table.load(delta, isHead ? 'head' : 'below', (record: TupleRecord) => {
    // A delta from before the disk was made smaller may know blocks past its end.
    const count = Math.min(record.count, blocks - record.block);
    if (record.kind === RECORD_ZERO) {
      if (count > 0) mapped += map.set(record.block, count, hidden);
      return;
    }
    for (let done = 0; done < count; ) {
      const slot = record.slot + done;
      const part = Math.min(count - done, SEGMENT_SLOTS - (slot % SEGMENT_SLOTS));
      mapped += map.set(record.block + done, part, DATA, addressOf(slot));
      done += part;
    }
  });
  row.set(VOLUME.mappedBlocks, mapped);
  if (!isHead) return;
  row.set(VOLUME.head, delta.index);
  row.set(VOLUME.recordCount, scan.count);
  row.set(VOLUME.committedCount, scan.uncommitted || scan.torn.length > 0 ? 0 : scan.count);
  row.set(VOLUME.nextSlot, scan.nextSlot);
  // An earlier process may have overwritten blocks in place without a flush.
  row.markDirty();
}

/** Zeroes a row but for its incarnation, which grows. */
export function clearRow(views: SharedViews, index: number): void {
  const at = index * VOLUME_WORDS;
  const incarnation = views.volumes[at + VOLUME.incarnation]!;
  views.volumes.fill(0, at, at + VOLUME_WORDS);
  Atomics.store(views.volumes, at + VOLUME.incarnation, incarnation + 1);
}

/**
 * Closes what `loadChain` opened, without a flush. The row's gate is closed and drained, or nobody
 * knows the row.
 */
export function unloadChain(tools: ChainTools, index: number, chain: LoadedChain): void {
  releaseMaps(tools, index);
  for (const id of chain.deltas) tools.table.release(id);
}

function releaseMaps(tools: ChainTools, index: number): void {
  const { views, pool } = tools;
  const row = new VolumeRow(views, index);
  const place = { root: row.get(VOLUME.mapRoot), levels: row.get(VOLUME.mapLevels) };
  new ChainMap(views.pages, pool, place).release();
  new SlotSpace(views.pages, views.volumes, pool, index).release();
  clearRow(views, index);
}
