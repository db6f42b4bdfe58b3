/** The delta files of a store as the VM side handles them: make, describe, collect. */
import { DiskError } from '../../common/errors.js';
import { fileSize } from '../../storage/small-files.js';
import type { DeltaFiles } from '../delta/delta-files.js';
import type { DeltaId } from '../delta-id.js';
import type { DeltaInfo, DeltaSpec, Deltas } from '../engine.js';
import { walkChain } from './chain-loader.js';
import type { DeltaTable } from './delta-table.js';

export class StoreDeltas implements Deltas {
  readonly #files: DeltaFiles;
  readonly #table: DeltaTable;
  readonly #trash: string;
  readonly #isSumming: () => boolean;

  constructor(files: DeltaFiles, table: DeltaTable, trash: string, isSumming: () => boolean) {
    this.#files = files;
    this.#table = table;
    this.#trash = trash;
    this.#isSumming = isSumming;
  }

  /** @throws DiskError from the host; `damaged` for a lower delta without its data. */
  async create(spec: DeltaSpec, id?: DeltaId): Promise<DeltaId> {
    if (spec.below.kind === 'delta') this.#refuseWithoutData(spec.below.id);
    return (await this.#files.create(spec, id)).id;
  }

  /** A disk that goes on with files which somebody removed is not kept alive by snapshots. */
  #refuseWithoutData(id: DeltaId): void {
    const tuples = this.#files.tuplesPath(id);
    const data = (): string => {
      const { dataGeneration } = this.#files.readHeader(id).current;
      return this.#files.dataPath(id, dataGeneration);
    };
    const missing = [() => tuples, data].find((path) => fileSize(path()) === undefined);
    if (missing === undefined) return;
    throw new DiskError('damaged', `${missing()}: this file of a delta is missing`, {
      hint: 'bring it back from a backup; if its disk is still open: copy what the raw file shows',
      errno: 'EIO',
    });
  }

  describe(id: DeltaId): DeltaInfo {
    const { current } = this.#files.readHeader(id);
    return {
      id,
      below: current.below,
      virtualSize: current.virtualSize,
      allocation: current.allocation,
      storedSize: this.#files.storedSize(current),
    };
  }

  /** Does at once what the opening of these heads would wait for one after the other. */
  async prepareToOpen(heads: Iterable<DeltaId>): Promise<void> {
    const ids = new Set<DeltaId>();
    for (const head of heads) {
      try {
        const { below } = this.#files.readHeader(head).current;
        ids.add(head);
        if (below.kind === 'delta') ids.add(below.id);
      } catch {
        // Whoever opens it is told.
      }
    }
    await this.#files.inheritAhead(ids);
  }

  isUntouched(id: DeltaId): boolean {
    return !this.#files.hasRecords(id);
  }

  async list(): Promise<DeltaId[]> {
    return await this.#files.list();
  }

  async discard(ids: readonly DeltaId[]): Promise<void> {
    for (const id of ids) {
      // An open one (a copy that failed a moment ago) is left to garbage collection.
      if (this.#table.get(id) === undefined) this.#files.remove(id);
    }
  }

  async collect(
    referenced: ReadonlySet<DeltaId>,
    dryRun: boolean,
  ): Promise<{ readonly files: string[]; readonly bytes: number }> {
    const keep = new Map<DeltaId, number>();
    const mark = (top: DeltaId): void => {
      if (keep.has(top)) return;
      for (const header of walkChain({ files: this.#files }, top)) {
        keep.set(header.id, header.dataGeneration);
        const { otherBelow } = this.#files.readHeader(header.id);
        // After a power cut the other copy may be the one in force.
        if (otherBelow !== undefined && this.#files.exists(otherBelow)) mark(otherBelow);
      }
    };
    for (const id of referenced) mark(id);
    for (const id of this.#table.openIds()) {
      keep.set(id, this.#files.readHeader(id).current.dataGeneration);
    }
    return await this.#files.collect(keep, this.#trash, dryRun, this.#isSumming);
  }
}
