/**
 * Flushes what was written to open volumes every few seconds, as file systems do: `sync` never
 * reaches a FUSE daemon (native-notes/kernel-guarantees.md).
 */
import { Periodic } from '../../common/periodic.js';
import { VolumeRow } from '../shared/volume-row.js';
import { flushVolumeAsync } from '../volume/durable-switch.js';
import type { ChainTools } from './chain-loader.js';
import type { OpenEntry } from './head-switch.js';
import { FLUSH_MS } from './volumes-options.js';

export interface VolumeFlusherParts {
  readonly tools: ChainTools;
  readonly entries: () => OpenEntry[];
  /** Does something with a volume that does not close meanwhile; nothing if it has closed. */
  readonly holding: (entry: OpenEntry, task: () => Promise<void>) => Promise<void>;
  readonly onError: (what: string, error: unknown) => void;
}

export class VolumeFlusher {
  readonly #parts: VolumeFlusherParts;
  readonly #timer = new Periodic(FLUSH_MS, () => this.flushAll());

  constructor(parts: VolumeFlusherParts) {
    this.#parts = parts;
  }

  start(): void {
    this.#timer.start();
  }

  async stop(): Promise<void> {
    await this.#timer.stop();
  }

  async flushAll(): Promise<void> {
    const { tools, entries, holding, onError } = this.#parts;
    for (const entry of entries()) {
      const row = new VolumeRow(tools.views, entry.index);
      if (row.readOnly || row.failed) continue;
      await holding(entry, () => flushVolumeAsync(tools.views, row)).catch((error: unknown) =>
        onError('cannot make a disk durable: it is suspect now', error),
      );
    }
  }
}
