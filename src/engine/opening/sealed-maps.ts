/**
 * Chain maps of sealed deltas, shared by the volumes whose chains stand on them: a thousand clones
 * of one disk have one map of it, and each a copy of the few nodes that its own head changed. Main
 * thread only.
 *
 * A volume alone on its chain has a map of its own. As soon as a second one opens a delta that is
 * open already, a map of that delta and all below it is made and kept for as long as somebody uses
 * it. It never changes: `chain-map.ts` copies a shared node before it writes to it.
 */
import { invariant } from '../../common/assert.js';
import type { DeltaHeader } from '../delta/delta-layout.js';
import type { DeltaId } from '../delta-id.js';
import { ChainMap } from '../shared/chain-map.js';
import { shareEntries } from '../shared/map-words.js';
import type { NodePool } from '../shared/node-pool.js';
import { PAGE_WORDS, VOLUME } from '../shared/shared-memory.js';
import { releaseSegments, type SlotSpace } from '../shared/slot-space.js';
import type { VolumeRow } from '../shared/volume-row.js';
import type { DeltaTable } from './delta-table.js';

/** What a map is made for: of one chain, maps of different shape are different maps. */
export interface MapShape {
  /** Blocks of the disk. */
  readonly blocks: number;
  /** Whether an image answers below the deltas. */
  readonly onBase: boolean;
}

export interface SealedMap extends MapShape {
  /** Top first. */
  readonly headers: readonly DeltaHeader[];
  readonly root: number;
  readonly levels: number;
  readonly segmentRoot: number;
  readonly segmentCount: number;
  /** Segments of `below`, among those. */
  readonly inheritedSegments: number;
  readonly mappedBlocks: number;
  /** The map whose nodes are part of this one. */
  readonly below: SealedMap | undefined;
  /** Volumes, and maps above it. */
  users: number;
}

/** A map of the chain's deltas from index `at` on. */
export interface FoundMap {
  readonly map: SealedMap;
  readonly at: number;
}

export class SealedMaps {
  readonly #nodes: NodePool;
  readonly #table: DeltaTable;
  readonly #byTop = new Map<DeltaId, SealedMap[]>();

  constructor(nodes: NodePool, table: DeltaTable) {
    this.#nodes = nodes;
    this.#table = table;
  }

  /** The chain under `top` as the maps in use know it. */
  headersUnder(top: DeltaId): readonly DeltaHeader[] | undefined {
    return this.#byTop.get(top)?.[0]?.headers;
  }

  /** The topmost map of the chain's deltas from index `first` on. */
  find(headers: readonly DeltaHeader[], first: number, shape: MapShape): FoundMap | undefined {
    for (let at = first; at < headers.length; at += 1) {
      const map = this.#byTop
        .get(headers[at]!.id)
        ?.find((each) => isOf(each, shape) && isChain(each.headers, headers, at));
      if (map !== undefined) return { map, at };
    }
    return undefined;
  }

  /** Index of the topmost delta, from `first` on, that somebody else has open; -1 for none. */
  sharedFrom(headers: readonly DeltaHeader[], first: number): number {
    return headers.findIndex(({ id }, at) => at >= first && this.#table.get(id) !== undefined);
  }

  /** One user more: the row stands on the map, and changes only nodes of its own from here on. */
  derive(map: SealedMap, row: VolumeRow, space: SlotSpace): void {
    const { pages } = this.#nodes;
    map.users += 1;
    shareEntries(pages.words, map.root * PAGE_WORDS, row.get(VOLUME.mapRoot) * PAGE_WORDS);
    space.inherit(map.segmentRoot, map.segmentCount);
    row.set(VOLUME.mappedBlocks, map.mappedBlocks);
  }

  /**
   * Makes what the row has mapped so far a sealed map, and puts empty tables into the row.
   * @param below what the row was derived from; the new map is its user in the row's place.
   */
  capture(
    row: VolumeRow,
    headers: readonly DeltaHeader[],
    made: { readonly shape: MapShape; readonly below: SealedMap | undefined },
  ): SealedMap {
    const root = this.#nodes.pages.allocate();
    let segmentRoot: number;
    try {
      segmentRoot = this.#nodes.pages.allocate();
    } catch (error) {
      this.#nodes.pages.release(root);
      throw error;
    }
    const map: SealedMap = {
      ...made.shape,
      headers,
      root: row.get(VOLUME.mapRoot),
      levels: row.get(VOLUME.mapLevels),
      segmentRoot: row.get(VOLUME.segmentRoot),
      segmentCount: row.get(VOLUME.segmentCount),
      inheritedSegments: row.get(VOLUME.inheritedSegments),
      mappedBlocks: row.get(VOLUME.mappedBlocks),
      below: made.below,
      users: 0,
    };
    row.set(VOLUME.mapRoot, root);
    row.set(VOLUME.segmentRoot, segmentRoot);
    row.set(VOLUME.segmentCount, 0);
    row.set(VOLUME.inheritedSegments, 0);
    row.set(VOLUME.mappedBlocks, 0);
    for (const header of headers) this.#table.use(header);
    const top = headers[0]!.id;
    this.#byTop.set(top, [map, ...(this.#byTop.get(top) ?? [])]);
    return map;
  }

  /** One user less; without one the map is gone. No thread is inside the user's row. */
  release(map: SealedMap): void {
    invariant(map.users > 0, `the sealed map of ${map.headers[0]!.id} is not in use`);
    map.users -= 1;
    if (map.users > 0) return;
    this.#forget(map);
    new ChainMap(this.#nodes, map).release();
    releaseSegments(this.#nodes.pages, map.segmentRoot, map.inheritedSegments);
    for (const { id } of map.headers) this.#table.release(id);
    if (map.below !== undefined) this.release(map.below);
  }

  #forget(map: SealedMap): void {
    const top = map.headers[0]!.id;
    const others = (this.#byTop.get(top) ?? []).filter((each) => each !== map);
    if (others.length > 0) this.#byTop.set(top, others);
    else this.#byTop.delete(top);
  }

  /**
   * What `id` stands on was changed on disk: who opens a chain with it from here on reads what it
   * is now, so that what became garbage is not held for ever. Those who are open go on.
   */
  forget(id: DeltaId): void {
    for (const map of [...this.#byTop.values()].flat()) {
      if (map.headers.some((header) => header.id === id)) this.#forget(map);
    }
  }
}

function isOf(map: SealedMap, { blocks, onBase }: MapShape): boolean {
  return map.blocks === blocks && map.onBase === onBase;
}

/** Whether `known` is what `headers` is from index `at` on. */
function isChain(
  known: readonly DeltaHeader[],
  headers: readonly DeltaHeader[],
  at: number,
): boolean {
  return (
    known.length === headers.length - at &&
    known.every(({ id }, index) => id === headers[at + index]!.id)
  );
}
