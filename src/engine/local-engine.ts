/** The engine of one store, put together: shared memory, delta files, open volumes. Main thread only. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { cacheEpoch } from '../storage/cache-epoch.js';
import type { BaseSpec, OpenBase } from './base.js';
import type { BaseNotice } from './base-table.js';
import { DeltaFiles } from './delta-files.js';
import { DeltaTable } from './delta-table.js';
import type { Engine } from './engine.js';
import {
  createSharedMemory,
  MAX_VOLUMES,
  type SharedMemory,
  STAT_FIELDS,
} from './shared-memory.js';
import { StoreDeltas } from './store-deltas.js';
import { createThreadContext } from './thread.js';
import type { ThreadContext } from './volume.js';
import { type CopyJob, OpenVolumes } from './volumes.js';

export interface EngineOptions {
  /** The store's folder; `deltas` and `trash` are made in it. */
  readonly store: string;
  /** All threads that will touch volumes: this one (index 0), I/O threads, background threads. */
  readonly threadCount: number;
  readonly openBase: OpenBase;
  readonly resolveBase: (id: string) => Promise<BaseSpec>;
  /** Passes a base notice on to the other threads. */
  readonly publishBase: (notice: BaseNotice) => void;
  readonly runCopy: (job: CopyJob) => Promise<void>;
  readonly onError: (what: string, error: unknown) => void;
}

/** Counters of one volume row, summed over threads, in the order of STAT. */
export type VolumeStats = readonly number[];

export class LocalEngine implements Engine {
  readonly memory: SharedMemory;
  readonly context: ThreadContext;
  readonly deltas: StoreDeltas;
  readonly volumes: OpenVolumes;

  constructor(options: EngineOptions) {
    const folder = join(options.store, 'deltas');
    const trash = join(options.store, 'trash');
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    mkdirSync(trash, { recursive: true, mode: 0o700 });
    this.memory = createSharedMemory(options.threadCount);
    this.context = createThreadContext({
      memory: this.memory,
      thread: 0,
      openBase: options.openBase,
      receive: () => {},
    });
    const { views, pool, bases } = this.context;
    const files = new DeltaFiles(folder, cacheEpoch(folder));
    const table = new DeltaTable(files, views);
    this.deltas = new StoreDeltas(files, table, trash);
    this.volumes = new OpenVolumes({
      tools: { views, pool, files, table },
      resolveBase: options.resolveBase,
      publishBase: (notice) => {
        bases.apply(notice);
        options.publishBase(notice);
      },
      runCopy: options.runCopy,
      onError: options.onError,
    });
  }

  /** Bytes of index that open volumes use. */
  get indexBytes(): number {
    return this.context.pool.bytes;
  }

  /** What all threads counted for a volume row since the daemon started. */
  statsOf(index: number): VolumeStats {
    const { stats, threadCount } = this.context.views;
    const sum = new Array<number>(STAT_FIELDS).fill(0);
    for (let thread = 0; thread < threadCount; thread += 1) {
      const at = (thread * MAX_VOLUMES + index) * STAT_FIELDS;
      for (let field = 0; field < STAT_FIELDS; field += 1) sum[field]! += stats[at + field]!;
    }
    return sum;
  }
}
