/** An engine on a scratch store, all on the calling thread. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { invariant } from '../../src/common/assert.js';
import { DiskError } from '../../src/common/errors.js';
import type { Base, BaseSpec } from '../../src/engine/base.js';
import type { Extent } from '../../src/engine/disk-image.js';
import { copyVolume } from '../../src/engine/jobs/copy-volume.js';
import { tidyDeltas } from '../../src/engine/jobs/tidy-deltas.js';
import { LocalEngine } from '../../src/engine/local-engine.js';
import { VolumeRow } from '../../src/engine/shared/volume-row.js';
import type { BaseNotice } from '../../src/engine/volume/base-table.js';
import { volumesOf } from '../../src/engine/volume/thread.js';
import type { Volume } from '../../src/engine/volume/volume.js';

/** A base in memory: zeroed 4 KiB blocks count as unallocated. */
export class MemoryBase implements Base {
  readonly bytes: Buffer;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }

  get virtualSize(): number {
    return this.bytes.length;
  }

  extentAt(offset: number, length: number, out: Extent): void {
    const end = Math.min(offset + length, (Math.floor(offset / 4096) + 1) * 4096);
    const block = this.bytes.subarray(end - (end % 4096 || 4096), end);
    out.state = block.some((byte) => byte !== 0) ? 'data' : 'unallocated';
    out.length = end - offset;
  }

  readAt(target: Buffer, targetOffset: number, offset: number, length: number): void {
    this.bytes.copy(target, targetOffset, offset, offset + length);
  }

  close(): void {}
}

export class ScratchEngine {
  readonly folder = mkdtempSync(join(tmpdir(), 'layerdisk-engine-'));
  readonly bases = new Map<string, Buffer>();
  engine: LocalEngine;
  volumeOf: (handle: number) => Volume;
  readonly errors: unknown[] = [];
  /** What threads were told of bases: those that are opened, and those that are closed. */
  readonly published: BaseNotice[] = [];
  /** Runs while a base is looked at. */
  onResolve = (): void => {};

  readonly #verifyReads: boolean;

  constructor({ verifyReads = false } = {}) {
    this.#verifyReads = verifyReads;
    this.engine = this.#make();
    this.volumeOf = volumesOf(this.engine.context);
  }

  #make(): LocalEngine {
    const openBase = (spec: BaseSpec): Base => {
      const bytes = this.bases.get(spec.id);
      if (bytes === undefined) throw new DiskError('not-permitted', `${spec.id} cannot be opened`);
      return new MemoryBase(bytes);
    };
    const engine: LocalEngine = new LocalEngine({
      store: this.folder,
      threadCount: 1,
      openBase,
      resolveBase: async (id) => {
        this.onResolve();
        const virtualSize = this.bases.get(id)!.length;
        return { id, images: [], virtualSize, allocatedSize: 0 };
      },
      baseAllocatedSize: () => 0,
      publishBase: (notice) => this.published.push(notice),
      runCopy: async ({ source, target, onProgress, signal }) =>
        copyVolume(engine.context, { source, target }, { onProgress, signal }),
      runReclaim: tidyDeltas,
      rowLength: 3,
      verifyReads: this.#verifyReads,
      onError: (_what, error) => this.errors.push(error),
    });
    return engine;
  }

  /** The process dies: what is in memory is gone, the page cache is not. */
  crash(): void {
    // Its timers still run in this process: the dead must not write any more.
    const { views } = this.engine.context;
    for (let row = 0; row < this.engine.volumes.rowsUsed; row += 1) {
      new VolumeRow(views, row).takeDirty();
    }
    this.engine = this.#make();
    this.volumeOf = volumesOf(this.engine.context);
  }

  /** An orderly end and a new start. */
  async reopen(): Promise<void> {
    await this.engine.volumes.closeAll();
    invariant(this.engine.indexBytes === 0, 'all of the index comes back');
    this.crash();
  }

  async close(): Promise<void> {
    await this.engine.volumes.closeAll();
    rmSync(this.folder, { recursive: true });
  }
}
