/**
 * What is changed on disk under volumes that may be open: headers of deltas, and with them what
 * chains consist of. Main thread only.
 */

import { repairCopies } from '../delta/header-copies.js';
import type { DeltaId } from '../delta-id.js';
import { VolumeRow } from '../shared/volume-row.js';
import { settleClosed, withCommitLock } from '../volume/durable-switch.js';
import type { ChainTools } from './chain-loader.js';
import { type MergedRow, remapChain } from './chain-remap.js';
import type { OpenEntry } from './head-switch.js';

export interface ChainChangesParts {
  readonly tools: ChainTools;
  readonly entries: () => OpenEntry[];
  /** Does something with a volume that does not close meanwhile; nothing if it has closed. */
  readonly holding: (entry: OpenEntry, task: () => Promise<void>) => Promise<void>;
  /** Volumes read deltas that nobody read before. */
  readonly onMerged: () => void;
  /** An error that no caller waits for. */
  readonly onError: (what: string, error: unknown) => void;
}

export class ChainChanges {
  readonly #parts: ChainChangesParts;
  /** Deltas that are still open somewhere, and what they were merged into at last. */
  readonly #merged = new Map<DeltaId, DeltaId>();

  constructor(parts: ChainChangesParts) {
    this.#parts = parts;
  }

  /** Lets a delta stand on another one that shows the same. What is open goes on with its own. */
  async changeBelow(id: DeltaId, below: DeltaId): Promise<void> {
    const { files, sealed } = this.#parts.tools;
    await this.#rewriteHeader(id, (isOpenHead) => {
      // Puts a torn commit right first: afterwards both copies count all its records.
      if (!isOpenHead) settleClosed(files, id, false);
      files.changeBelow(id, below);
      sealed.forget(id);
    });
  }

  /** The same for a delta that stands on a row of which `made` shows all: see `follow`. */
  async replaceRow(id: DeltaId, row: readonly DeltaId[], made: DeltaId): Promise<void> {
    await this.changeBelow(id, made);
    for (const [former, known] of this.#merged) {
      if (row.includes(known)) this.#merged.set(former, made);
    }
    for (const former of row) this.#merged.set(former, made);
  }

  /**
   * Lets open volumes go on with what rows were merged into, so that those can go. What `signal`
   * breaks off the next call does.
   */
  async follow(signal?: AbortSignal): Promise<void> {
    const { tools, entries, holding, onMerged, onError } = this.#parts;
    this.#forgetClosed();
    if (this.#merged.size === 0) return;
    for (const entry of entries()) {
      await holding(entry, async () => {
        for (const merged of this.#rowsIn(entry)) await remapChain(tools, entry, merged, signal);
      }).catch((error: unknown) => onError('a disk goes on with deltas that were merged', error));
    }
    this.#forgetClosed();
    onMerged();
  }

  /** Each delta of an open chain, and what lies on it there: nothing on a top. */
  *openLinks(): Generator<{ readonly delta: DeltaId; readonly above: DeltaId | undefined }> {
    for (const { chain } of this.#parts.entries()) {
      for (const [at, delta] of chain.deltas.entries()) {
        yield { delta, above: chain.deltas[at - 1] };
      }
    }
  }

  #forgetClosed(): void {
    const { table } = this.#parts.tools;
    const open = (id: DeltaId): boolean => table.get(id) !== undefined;
    for (const id of this.#merged.keys()) if (!open(id)) this.#merged.delete(id);
  }

  /** Rows in the chain of a volume that were merged. */
  #rowsIn({ chain }: OpenEntry): MergedRow[] {
    const rows = new Map<DeltaId, DeltaId[]>();
    for (const id of chain.deltas) {
      const made = this.#merged.get(id);
      if (made !== undefined) rows.set(made, [...(rows.get(made) ?? []), id]);
    }
    return [...rows].map(([made, row]) => ({ made, row }));
  }

  /** Writes a damaged header copy anew from the intact one. @returns whether there was one. */
  async repairHeader(id: DeltaId): Promise<boolean> {
    return await this.#rewriteHeader(id, () => repairCopies(this.#parts.tools.files, id));
  }

  /** Runs `write` while no flush of an open head writes the same header. */
  async #rewriteHeader<T>(id: DeltaId, write: (isOpenHead: boolean) => T): Promise<T> {
    const { tools, entries } = this.#parts;
    // A snapshot that somebody reads is open, but no head: nobody flushes it, nor put it in order.
    const entry = entries().find(({ chain }) => chain.writable && chain.deltas[0] === id);
    if (entry === undefined) return write(false);
    const { views } = tools;
    return await withCommitLock(views, new VolumeRow(views, entry.index), async () => write(true));
  }
}
