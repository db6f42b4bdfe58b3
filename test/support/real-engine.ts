/** The engine itself, all on the calling thread, for the tests that also run with the fake one. */

import type { BaseSpec } from '../../src/engine/base.js';
import type { DeltaId } from '../../src/engine/delta-id.js';
import type { Reclaimed } from '../../src/engine/engine.js';
import { copyVolume } from '../../src/engine/jobs/copy-volume.js';
import { tidyDeltas } from '../../src/engine/jobs/tidy-deltas.js';
import { LocalEngine } from '../../src/engine/local-engine.js';
import { HANDED_OUT } from '../../src/engine/shared/page-pool.js';
import {
  createSharedMemory,
  DELTA_WORDS,
  PAGE_WORDS,
  type SharedMemory,
  STAT_FIELDS,
  VOLUME_WORDS,
  viewSharedMemory,
} from '../../src/engine/shared/shared-memory.js';
import { VolumeRow } from '../../src/engine/shared/volume-row.js';
import { volumesOf } from '../../src/engine/volume/thread.js';
import type { Volume } from '../../src/engine/volume/volume.js';
import { openBase } from '../../src/formats/base.js';
import type { TestEngine } from './vm-world.js';

export interface RealEngineOptions {
  readonly store: string;
  readonly resolveBase: (id: string) => Promise<BaseSpec>;
  /** Another one than the host's: there was a power cut. */
  readonly epoch?: string;
}

/** Memory of engines that are gone: to allocate it anew costs more than all else of a start. */
const unused: SharedMemory[] = [];
/** Far more rows and deltas than these tests open at a time. */
const FEW = 1024;

function takeMemory(): SharedMemory {
  const memory = unused.pop();
  if (memory === undefined) return createSharedMemory(1);
  const { pages, volumes, deltas, threads, stats, allowance } = viewSharedMemory(memory);
  pages.fill(0, 0, PAGE_WORDS * (pages[HANDED_OUT]! + 1));
  volumes.fill(0, 0, VOLUME_WORDS * FEW);
  deltas.fill(0, 0, DELTA_WORDS * FEW);
  stats.fill(0, 0, STAT_FIELDS * FEW);
  threads.fill(0);
  allowance.fill(0);
  return memory;
}

export class RealEngine implements TestEngine {
  readonly errors: unknown[] = [];
  readonly #options: RealEngineOptions;
  #memory = takeMemory();
  #engine: LocalEngine;
  #volumeOf: (handle: number) => Volume;

  constructor(options: RealEngineOptions) {
    this.#options = options;
    this.#engine = this.#start();
    this.#volumeOf = volumesOf(this.#engine.context);
  }

  get deltas(): LocalEngine['deltas'] {
    return this.#engine.deltas;
  }

  get volumes(): LocalEngine['volumes'] {
    return this.#engine.volumes;
  }

  async write(head: DeltaId, offset: number, data: Buffer): Promise<void> {
    const volume = await this.volumes.acquire(head, { writable: true });
    try {
      this.#volumeOf(volume.handle).write(data, 0, offset, data.length);
    } finally {
      this.volumes.release(volume);
    }
  }

  async readAll(top: DeltaId, writable: boolean): Promise<Buffer> {
    const volume = await this.volumes.acquire(top, { writable });
    try {
      const bytes = Buffer.alloc(volume.size);
      this.#volumeOf(volume.handle).read(bytes, 0, 0, bytes.length);
      return bytes;
    } finally {
      this.volumes.release(volume);
    }
  }

  zero(...range: Parameters<LocalEngine['zero']>): Promise<void> {
    return this.#engine.zero(...range);
  }

  get health(): LocalEngine['health'] {
    return this.#engine.health;
  }

  reclaim(...request: Parameters<LocalEngine['reclaim']>): Promise<Reclaimed> {
    return this.#engine.reclaim(...request);
  }

  async restart(): Promise<void> {
    await this.close();
    this.#memory = takeMemory();
    this.#engine = this.#start();
    this.#volumeOf = volumesOf(this.#engine.context);
  }

  async close(): Promise<void> {
    await this.#engine.volumes.closeAll().catch((error: unknown) => this.errors.push(error));
    unused.push(this.#memory);
  }

  /** The process is killed, nothing is flushed, and another one starts. */
  die(): void {
    const { views } = this.#engine.context;
    for (let row = 0; row < this.volumes.rowsUsed; row += 1) {
      new VolumeRow(views, row).takeDirty();
    }
    // What it had in memory is not used again: its timers still run.
    this.#memory = takeMemory();
    this.#engine = this.#start();
    this.#volumeOf = volumesOf(this.#engine.context);
  }

  async discard(head: DeltaId, offset: number, length: number): Promise<void> {
    const volume = await this.volumes.acquire(head, { writable: true });
    try {
      this.#volumeOf(volume.handle).discard(offset, length);
    } finally {
      this.volumes.release(volume);
    }
  }

  #start(): LocalEngine {
    const engine: LocalEngine = new LocalEngine({
      ...this.#options,
      threadCount: 1,
      memory: this.#memory,
      openBase,
      baseAllocatedSize: () => 0,
      publishBase: () => undefined,
      runCopy: async ({ source, target, onProgress, signal }) =>
        copyVolume(engine.context, { source, target }, { onProgress, signal }),
      runReclaim: tidyDeltas,
      rowLength: 3,
      onError: (_what, error) => this.errors.push(error),
    });
    return engine;
  }
}
