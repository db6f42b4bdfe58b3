/**
 * The engine of one store, put together: shared memory, delta files, open volumes. Main thread
 * only.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { collectPage, type MapPage } from '../common/extent-map.js';
import { alignUp, BLOCK_SIZE } from '../common/units.js';
import { cacheEpoch } from '../storage/cache-epoch.js';
import type { BaseSpec, OpenBase } from './base.js';
import { DeltaFiles } from './delta/delta-files.js';
import type { DeltaHeader } from './delta/delta-layout.js';
import type { DeltaId } from './delta-id.js';
import type { Engine, Reclaimed, ReclaimRequest } from './engine.js';
import { Health, type Work } from './jobs/health.js';
import { ROW_LENGTH } from './jobs/merge.js';
import { Reclaimer } from './jobs/reclaimer.js';
import type { TidyOrder, TidyOutcome } from './jobs/tidy-deltas.js';
import { type ChainTools, walkChain } from './opening/chain-loader.js';
import { DeltaTable } from './opening/delta-table.js';
import { ChainNames } from './opening/disk-map.js';
import { PublishedSums } from './opening/published-sums.js';
import { SealedMaps } from './opening/sealed-maps.js';
import { StoreDeltas } from './opening/store-deltas.js';
import { OpenVolumes } from './opening/volumes.js';
import type { CopyJob } from './opening/volumes-options.js';
import { NodePool } from './shared/node-pool.js';
import {
  createSharedMemory,
  MAX_VOLUMES,
  type SharedMemory,
  STAT_FIELDS,
} from './shared/shared-memory.js';
import type { BaseNotice } from './volume/base-table.js';
import { flatFileOf } from './volume/flat-file.js';
import type { FoundRot } from './volume/read-verifier.js';
import { createThreadContext, volumesOf } from './volume/thread.js';
import type { ThreadContext, Volume } from './volume/volume.js';

export interface EngineOptions {
  /** The store's folder; `deltas` and `trash` are made in it. */
  readonly store: string;
  /** All threads that will touch volumes: this one (index 0), I/O threads, background threads. */
  readonly threadCount: number;
  /** Where failed flushes are noted so that a later process knows them; default: nowhere. */
  readonly suspectsFd?: number | undefined;
  readonly openBase: OpenBase;
  readonly resolveBase: (id: string) => Promise<BaseSpec>;
  /** Bytes of data in a base, as recorded at import. */
  readonly baseAllocatedSize: (id: string) => number;
  /** Passes a base notice on to the other threads. */
  readonly publishBase: (notice: BaseNotice) => void;
  readonly runCopy: (job: CopyJob) => Promise<void>;
  /** Runs `tidyDeltas` on a background thread. */
  readonly runReclaim: (order: TidyOrder, work?: Work) => Promise<TidyOutcome>;
  /** How long a row of deltas must be to be merged. Default `ROW_LENGTH`. */
  readonly rowLength?: number;
  /** Whether reads of sealed deltas are checked against their checksums. Default false. */
  readonly verifyReads?: boolean;
  readonly onError: (what: string, error: unknown) => void;
  /** Zeroed memory of an engine that is gone, for who starts thousands of them. */
  readonly memory?: SharedMemory;
  /** Instead of what storage/cache-epoch.ts finds: for who plays a power cut. */
  readonly epoch?: string;
}

const REMEMBERED_BOTTOMS = 20_000;
/** How long the main thread works on one page of a map, milliseconds. */
const MAX_PAGE_MS = 20;

/** Counters of one volume row, summed over threads, in the order of STAT. */
export type VolumeStats = readonly number[];

export class LocalEngine implements Engine {
  readonly memory: SharedMemory;
  readonly context: ThreadContext;
  readonly deltas: StoreDeltas;
  readonly volumes: OpenVolumes;
  readonly health: Health;
  readonly #files: DeltaFiles;
  readonly #table: DeltaTable;
  readonly #volumeOf: (handle: number) => Volume;
  readonly #reclaimer: Reclaimer;
  readonly #sums: PublishedSums | undefined;
  readonly #baseAllocatedSize: (id: string) => number;
  /** Counters of a row when its present volume was opened: rows are used again. */
  readonly #baselines = new Map<number, VolumeStats>();
  readonly #bottoms = new Map<DeltaId, { readonly base: string | undefined }>();

  constructor(options: EngineOptions) {
    const folder = join(options.store, 'deltas');
    const trash = join(options.store, 'trash');
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    mkdirSync(trash, { recursive: true, mode: 0o700 });
    const { threadCount, suspectsFd } = options;
    this.memory = options.memory ?? createSharedMemory(threadCount, suspectsFd);
    this.context = createThreadContext({
      memory: this.memory,
      thread: 0,
      openBase: options.openBase,
      receive: () => {},
      onRot: options.verifyReads === true ? (rot) => this.foundRot(rot) : undefined,
    });
    const { views, bases } = this.context;
    const files = new DeltaFiles(folder, options.epoch ?? cacheEpoch(folder));
    const table = new DeltaTable(files, views);
    this.#files = files;
    this.#table = table;
    this.#volumeOf = volumesOf(this.context);
    this.#baseAllocatedSize = options.baseAllocatedSize;
    this.#sums =
      options.verifyReads === true
        ? new PublishedSums({ files, table, onError: options.onError })
        : undefined;
    this.health = new Health({
      files,
      onSummed: () => this.#sums?.publish(),
      volumes: () => this.volumes,
      run: options.runReclaim,
      onError: options.onError,
    });
    this.deltas = new StoreDeltas(files, table, trash, () => this.health.isSumming);
    this.volumes = new OpenVolumes({
      tools: chainTools(this.context, files, table),
      resolveBase: options.resolveBase,
      publishBase: (notice) => {
        bases.apply(notice);
        options.publishBase(notice);
      },
      runCopy: options.runCopy,
      onOpen: (row) => {
        this.#baselines.set(row, this.#countersOf(row));
        this.#sums?.publish();
      },
      onSealed: () => this.health.schedule(),
      onMerged: () => this.#sums?.publish(),
      onError: options.onError,
    });
    this.#reclaimer = new Reclaimer({
      files,
      volumes: this.volumes,
      run: options.runReclaim,
      rowLength: options.rowLength ?? ROW_LENGTH,
      room: () => this.context.allowance.left,
      onError: options.onError,
    });
  }

  /** A thread read bytes that are not what was sealed. */
  foundRot(rot: FoundRot): void {
    this.#sums?.found(rot);
  }

  /**
   * What the chain under `top` takes, whether it is open or not; and the data file of its top
   * delta.
   * @throws DiskError `not-found` or `damaged`.
   */
  chainFacts(top: DeltaId): { readonly allocatedSize: number; readonly dataPath: string } {
    const header = this.#files.readHeader(top).current;
    const dataPath = this.#files.dataPath(top, header.dataGeneration);
    const open = this.volumes.describe(top);
    if (open !== undefined) return { allocatedSize: open.allocatedSize, dataPath };
    const base = this.#baseUnder(header);
    const bytes =
      header.mappedBlocks * BLOCK_SIZE + (base === undefined ? 0 : this.#baseAllocatedSize(base));
    const most = alignUp(header.virtualSize, BLOCK_SIZE);
    return { allocatedSize: Math.min(bytes, most), dataPath };
  }

  /** The base at the bottom of a chain; remembered by what heads stand on, as it never changes. */
  #baseUnder({ below }: DeltaHeader): string | undefined {
    if (below.kind !== 'delta') return below.kind === 'base' ? below.id : undefined;
    const known = this.#bottoms.get(below.id);
    if (known !== undefined) return known.base;
    const bottom = walkChain({ files: this.#files }, below.id).at(-1)!.below;
    const base = bottom.kind === 'base' ? bottom.id : undefined;
    if (this.#bottoms.size >= REMEMBERED_BOTTOMS) this.#bottoms.clear();
    this.#bottoms.set(below.id, { base });
    return base;
  }

  /**
   * The file that holds all bytes of an open disk that nobody writes to, if there is one.
   * @param handle of `volumes.acquire`.
   */
  flatFile(handle: number): string | undefined {
    return flatFileOf(this.#volumeOf(handle), this.volumes.chainOf({ handle }).base);
  }

  /**
   * One page of the map of the disk under `top`: a disk that is written to meanwhile may have
   * changed before the next one.
   */
  async mapPage(
    top: DeltaId,
    options: { readonly writable: boolean },
    range: { readonly start: number; readonly limit: number },
  ): Promise<MapPage> {
    const open = await this.volumes.acquire(top, options);
    try {
      const names = new ChainNames(this.#files, this.#table, this.volumes.chainOf(open));
      const volume = this.#volumeOf(open.handle);
      return collectPage({ ...range, end: volume.size, maxMs: MAX_PAGE_MS }, (at) =>
        names.describe(at, volume.mapAt(at, volume.size - at)),
      );
    } finally {
      this.volumes.release(open);
    }
  }

  /**
   * Opens a disk and lets go of it.
   * @throws DiskError saying why it cannot be opened, where who opens its file hears EIO.
   */
  async tryOpen(top: DeltaId, options: { readonly writable: boolean }): Promise<void> {
    this.volumes.release(await this.volumes.acquire(top, options));
  }

  async zero(top: DeltaId, offset: number, length: number): Promise<void> {
    const open = await this.volumes.acquire(top, { writable: true });
    try {
      this.#volumeOf(open.handle).discard(offset, length);
      await this.volumes.flushHandle(open.handle);
    } finally {
      this.volumes.release(open);
    }
    await this.volumes.close(top);
  }

  async reclaim(request: ReclaimRequest, signal?: AbortSignal): Promise<Reclaimed> {
    return await this.#reclaimer.reclaim(request, signal);
  }

  /** Bytes of index that open volumes use. */
  get indexBytes(): number {
    return this.context.nodes.pages.bytes;
  }

  /** What all threads counted for an open volume since it was opened. */
  statsOf(handle: number): VolumeStats {
    const before = this.#baselines.get(handle);
    return this.#countersOf(handle).map((count, field) => count - (before?.[field] ?? 0));
  }

  /** The same for all volumes since the daemon started. */
  totalStats(): VolumeStats {
    const sum = new Array<number>(STAT_FIELDS).fill(0);
    for (let row = 0; row < this.volumes.rowsUsed; row += 1) {
      this.#countersOf(row).forEach((count, field) => {
        sum[field]! += count;
      });
    }
    return sum;
  }

  #countersOf(row: number): VolumeStats {
    const { stats, threadCount } = this.context.views;
    const sum = new Array<number>(STAT_FIELDS).fill(0);
    for (let thread = 0; thread < threadCount; thread += 1) {
      const at = (thread * MAX_VOLUMES + row) * STAT_FIELDS;
      for (let field = 0; field < STAT_FIELDS; field += 1) sum[field]! += stats[at + field]!;
    }
    return sum;
  }
}

function chainTools(
  { views, nodes }: ThreadContext,
  files: DeltaFiles,
  table: DeltaTable,
): ChainTools {
  // Of chains that are being opened: nobody reads their maps yet.
  const unread = new NodePool(nodes.pages);
  return {
    views,
    nodes: unread,
    liveNodes: nodes,
    files,
    table,
    sealed: new SealedMaps(unread, table),
  };
}
