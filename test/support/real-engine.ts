/** The engine itself, all on the calling thread, for the tests that also run with the fake one. */

import type { BaseSpec } from '../../src/engine/base.js';
import { copyVolume } from '../../src/engine/copy-volume.js';
import type { DeltaId } from '../../src/engine/delta-id.js';
import type { Reclaimed } from '../../src/engine/engine.js';
import { LocalEngine } from '../../src/engine/local-engine.js';
import { volumesOf } from '../../src/engine/thread.js';
import { tidyDeltas } from '../../src/engine/tidy-deltas.js';
import type { Volume } from '../../src/engine/volume.js';
import { openBase } from '../../src/formats/base.js';
import type { TestEngine } from './vm-world.js';

export interface RealEngineOptions {
  readonly store: string;
  readonly resolveBase: (id: string) => Promise<BaseSpec>;
}

export class RealEngine implements TestEngine {
  readonly errors: unknown[] = [];
  readonly #options: RealEngineOptions;
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

  get health(): LocalEngine['health'] {
    return this.#engine.health;
  }

  reclaim(...request: Parameters<LocalEngine['reclaim']>): Promise<Reclaimed> {
    return this.#engine.reclaim(...request);
  }

  async restart(): Promise<void> {
    await this.#engine.volumes.closeAll();
    this.#engine = this.#start();
    this.#volumeOf = volumesOf(this.#engine.context);
  }

  close(): Promise<void> {
    return this.#engine.volumes.closeAll();
  }

  #start(): LocalEngine {
    const engine: LocalEngine = new LocalEngine({
      ...this.#options,
      threadCount: 1,
      openBase,
      baseAllocatedSize: () => 0,
      publishBase: () => undefined,
      runCopy: async ({ source, target, onProgress, signal }) =>
        copyVolume(
          engine.context,
          { source, target },
          { onProgress, cancelled: () => signal?.aborted === true },
        ),
      runReclaim: tidyDeltas,
      rowLength: 3,
      onError: (_what, error) => this.errors.push(error),
    });
    return engine;
  }
}
