/**
 * Opening a chain: every delta from the bottom up is read into the map of a volume row. Main thread
 * only.
 */

import { DiskError } from '../../common/errors.js';
import { BLOCK_SIZE, divCeil } from '../../common/units.js';
import type { BaseSpec } from '../base.js';
import type { DeltaFiles } from '../delta/delta-files.js';
import type { SealedDelta } from '../delta/delta-header.js';
import {
  type DeltaHeader,
  RECORD_ZERO,
  recordSeed,
  type TupleRecord,
} from '../delta/delta-layout.js';
import type { DeltaId } from '../delta-id.js';
import { ChainMap } from '../shared/chain-map.js';
import { MapLoader } from '../shared/map-loader.js';
import { DATA, levelsFor, UNMAPPED, ZERO } from '../shared/map-words.js';
import type { NodePool } from '../shared/node-pool.js';
import {
  type SharedViews,
  VOLUME,
  VOLUME_READ_ONLY,
  VOLUME_STATIC,
  VOLUME_WORDS,
} from '../shared/shared-memory.js';
import { SEGMENT_SLOTS, SlotSpace } from '../shared/slot-space.js';
import { VolumeRow } from '../shared/volume-row.js';
import type { DeltaTable, OpenDelta } from './delta-table.js';
import type { FoundMap, MapShape, SealedMap, SealedMaps } from './sealed-maps.js';

/** Longest chain of deltas (design: stated limits). */
export const MAX_DEPTH = 1000;

export interface LoadedChain {
  /** Top first. */
  readonly deltas: readonly DeltaId[];
  readonly base: BaseSpec | undefined;
  readonly writable: boolean;
  /** What the map was derived from, if anything. */
  readonly sealed: SealedMap | undefined;
}

/** Sealed deltas that were read as wholes. */
export type FoundDeltas = Map<DeltaId, SealedDelta>;

export interface ChainTools {
  readonly views: SharedViews;
  /** For maps that no thread reads yet. */
  readonly nodes: NodePool;
  /** For maps that threads may be reading. */
  readonly liveNodes: NodePool;
  readonly files: DeltaFiles;
  readonly table: DeltaTable;
  readonly sealed: SealedMaps;
}

/**
 * Headers from `top` down to the bottom; chains that `sealed` knows are not read again.
 * @param found takes what is read besides: `loadChain` need not read it a second time.
 * @throws DiskError `damaged` for a cycle or a missing delta, `not-supported` past MAX_DEPTH.
 */
export function walkChain(
  { files, sealed: known }: Pick<ChainTools, 'files'> & Partial<Pick<ChainTools, 'sealed'>>,
  top: DeltaId,
  found?: FoundDeltas,
): DeltaHeader[] {
  const headers: DeltaHeader[] = [];
  const seen = new Set<DeltaId>();
  let id: DeltaId | undefined = top;
  while (id !== undefined) {
    if (seen.has(id)) {
      throw new DiskError('damaged', `delta ${id} is its own ancestor`, { errno: 'EIO' });
    }
    const rest = known?.headersUnder(id);
    if (headers.length + (rest?.length ?? 1) > MAX_DEPTH) throw tooDeep();
    if (rest !== undefined) {
      headers.push(...rest);
      break;
    }
    seen.add(id);
    const header: DeltaHeader = readHeader(files, id, found);
    headers.push(header);
    id = header.below.kind === 'delta' ? header.below.id : undefined;
  }
  return headers;
}

function readHeader(files: DeltaFiles, id: DeltaId, found: FoundDeltas | undefined): DeltaHeader {
  if (found === undefined) return files.readHeader(id).current;
  const { copies, sealed } = files.readWhole(id);
  if (sealed !== undefined) found.set(id, sealed);
  return copies.current;
}

function tooDeep(): DiskError {
  return new DiskError('not-supported', `the chain is deeper than ${MAX_DEPTH} deltas`, {
    errno: 'EIO',
    hint: 'make a full clone, which starts with a chain of its own',
  });
}

export interface LoadOptions {
  readonly writable: boolean;
  readonly base: BaseSpec | undefined;
  readonly baseIndex: number;
  /** What walking the chain found. */
  readonly found?: FoundDeltas;
}

/**
 * Fills the row `index` with the chain under `headers[0]`; on failure nothing stays open.
 */
export function loadChain(
  tools: ChainTools,
  index: number,
  headers: readonly DeltaHeader[],
  options: LoadOptions,
): LoadedChain {
  const { table } = tools;
  const row = new VolumeRow(tools.views, index);
  const onto = planSharing(tools, headers, options);
  const used: DeltaId[] = [];
  let sealed: SealedMap | undefined;
  try {
    prepareRow(tools, row, headers[0]!, options);
    for (const header of [...headers].reverse()) {
      table.use(header);
      used.push(header.id);
    }
    const apply = (from: number, end: number): void => {
      const place = { root: row.get(VOLUME.mapRoot), levels: row.get(VOLUME.mapLevels) };
      const loader = new MapLoader(new ChainMap(tools.nodes, place));
      for (let at = end - 1; at >= from; at -= 1) {
        const isHead = options.writable && at === 0;
        const delta = table.get(headers[at]!.id)!;
        const known = isHead ? 'head' : options.found?.get(delta.id);
        applyDelta(tools, { row, loader }, delta, known);
      }
      row.set(VOLUME.mappedBlocks, row.get(VOLUME.mappedBlocks) + loader.finish());
    };
    const stand = (map: SealedMap): void => {
      sealed = map;
      tools.sealed.derive(map, row, spaceOf(tools, index));
    };
    let rest = headers.length;
    if (onto.found !== undefined) {
      stand(onto.found.map);
      rest = onto.found.at;
    }
    if (onto.shareFrom >= 0 && onto.shareFrom < rest) {
      apply(onto.shareFrom, rest);
      const made = { shape: onto.shape, below: sealed };
      const map = tools.sealed.capture(row, headers.slice(onto.shareFrom), made);
      // The use that the row had of the map below is that map's now.
      stand(map);
      rest = onto.shareFrom;
    }
    apply(0, rest);
  } catch (error) {
    releaseMaps(tools, index);
    if (sealed !== undefined) tools.sealed.release(sealed);
    for (const id of used) table.release(id);
    throw error;
  }
  const deltas = headers.map((header) => header.id);
  return { deltas, base: options.base, writable: options.writable, sealed };
}

/** Which part of a chain's map is there already, and which others will want, too. */
function planSharing(
  { sealed }: ChainTools,
  headers: readonly DeltaHeader[],
  options: LoadOptions,
): { shape: MapShape; found: FoundMap | undefined; shareFrom: number } {
  const shape: MapShape = {
    blocks: divCeil(headers[0]!.virtualSize, BLOCK_SIZE),
    onBase: options.base !== undefined,
  };
  const first = options.writable ? 1 : 0;
  const shareFrom = sealed.sharedFrom(headers, first);
  return { shape, found: sealed.find(headers, first, shape), shareFrom };
}

/** Clears the row and gives it empty tables. */
function prepareRow(
  { views, nodes }: ChainTools,
  row: VolumeRow,
  top: DeltaHeader,
  { writable, base, baseIndex }: LoadOptions,
): void {
  clearRow(views, row.index);
  row.size = top.virtualSize;
  row.baseAllocated = base?.allocatedSize ?? 0;
  row.set(VOLUME.base, baseIndex);
  row.set(VOLUME.mapLevels, levelsFor(divCeil(top.virtualSize, BLOCK_SIZE)));
  for (const field of [VOLUME.mapRoot, VOLUME.segmentRoot, VOLUME.slotRoot]) {
    row.set(field, nodes.pages.allocate());
  }
  row.set(VOLUME.recordSeed, recordSeed(top.id));
  const isStatic = top.allocation === 'static' ? VOLUME_STATIC : 0;
  row.set(VOLUME.flags, (writable ? 0 : VOLUME_READ_ONLY) | isStatic);
}

function spaceOf({ views, nodes }: ChainTools, index: number): SlotSpace {
  return new SlotSpace(views.volumes, nodes.pages, index);
}

/** Brings one delta's records into the map. @param known that it is the head, or what it holds. */
function applyDelta(
  tools: ChainTools,
  { row, loader }: { readonly row: VolumeRow; readonly loader: MapLoader },
  delta: OpenDelta,
  known: 'head' | SealedDelta | undefined,
): void {
  const { table } = tools;
  const isHead = known === 'head';
  const space = spaceOf(tools, row.index);
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
  const apply = (record: TupleRecord): void => {
    // A delta from before the disk was made smaller may know blocks past its end.
    const count = Math.min(record.count, blocks - record.block);
    if (record.kind === RECORD_ZERO) {
      if (count > 0) loader.add(record.block, count, hidden);
      return;
    }
    for (let done = 0; done < count; ) {
      const slot = record.slot + done;
      const part = Math.min(count - done, SEGMENT_SLOTS - (slot % SEGMENT_SLOTS));
      loader.add(record.block + done, part, DATA, addressOf(slot));
      done += part;
    }
  };
  const scan =
    typeof known === 'object'
      ? table.loadSealed(delta, known, apply)
      : table.load(delta, known ?? 'below', apply);
  if (!isHead) return;
  row.set(VOLUME.head, delta.index);
  row.set(VOLUME.recordCount, scan.count);
  row.set(VOLUME.committedCount, scan.uncommitted || scan.torn.length > 0 ? 0 : scan.count);
  row.set(VOLUME.nextSlot, scan.nextSlot);
  // An earlier process may have overwritten blocks in place without a flush.
  row.markDirty();
}

/** Zeroes a row but for its incarnation, which grows. */
function clearRow(views: SharedViews, index: number): void {
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
  if (new VolumeRow(tools.views, index).failed) {
    for (const id of chain.deltas) tools.files.distrust(id);
  }
  releaseMaps(tools, index);
  if (chain.sealed !== undefined) tools.sealed.release(chain.sealed);
  for (const id of chain.deltas) tools.table.release(id);
}

function releaseMaps(tools: ChainTools, index: number): void {
  const { views, nodes } = tools;
  const row = new VolumeRow(views, index);
  const root = row.get(VOLUME.mapRoot);
  if (row.get(VOLUME.slotRoot) !== 0) {
    new ChainMap(nodes, { root, levels: row.get(VOLUME.mapLevels) }).release();
    spaceOf(tools, index).release();
  } else {
    // There was no memory for all of them.
    for (const page of [root, row.get(VOLUME.segmentRoot)])
      if (page !== 0) nodes.pages.release(page);
  }
  clearRow(views, index);
}
