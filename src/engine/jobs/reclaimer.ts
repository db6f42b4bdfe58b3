/** Decides what can be tidied up below the labels, and lets it be done. Main thread only. */
import { invariant } from '../../common/assert.js';
import { DiskError } from '../../common/errors.js';
import { MiB } from '../../common/units.js';
import type { DeltaFiles } from '../delta/delta-files.js';
import type { DeltaId } from '../delta-id.js';
import type { Reclaimed, ReclaimRequest } from '../engine.js';
import type { OpenVolumes } from '../opening/volumes.js';
import type { Work } from './health.js';
import { mergeStart } from './merge.js';
import type { TidyOrder, TidyOutcome } from './tidy-deltas.js';

export interface ReclaimerParts {
  readonly files: DeltaFiles;
  readonly volumes: OpenVolumes;
  readonly run: (order: TidyOrder, work?: Work) => Promise<TidyOutcome>;
  readonly rowLength: number;
  /** Bytes that the store has room for. */
  readonly room: () => number;
  /** Something that was left as it is. */
  readonly onError: (what: string, error: unknown) => void;
}

/** With less room than that, bytes, heads are flushed first so that more can be given back. */
const FLUSH_BELOW = 64 * MiB;

/** So many deltas that wait for it make it pressing: chains must not grow for ever. */
const MANY_HIDDEN = 100;

/**
 * Rows of so many times the usual length that hold no more than that, bytes, are merged before any
 * of their deltas is punched: one by one that takes longer than copying what they hold, and a
 * daemon that never lives so long never gets to the end.
 */
const LONG_ROW = 4;
const SMALL_ROW = 256 * MiB;

/**
 * What is wrong with a delta or a row that is left as it is: it has rotted, lost a file, or takes
 * more slots than one may.
 */
const LEFT_ALONE: ReadonlySet<string> = new Set(['damaged', 'not-supported']);

interface How {
  readonly pressing: boolean;
  readonly signal: AbortSignal | undefined;
  /** The lowest deltas of rows that cannot be merged, tried and told once a collection. */
  readonly leftAlone: Set<DeltaId>;
}

/** A delta that nobody names and only one other stands on. */
interface Hidden {
  readonly child: DeltaId;
  readonly below: DeltaId | undefined;
  readonly sealed: boolean;
}

/**
 * INVARIANT: a delta without a label never gets one again and never gets another child, so what is
 * found here stays true while other work goes on.
 */
export class Reclaimer {
  readonly #parts: ReclaimerParts;
  /** What was looked at, so that it is not looked at again before the child has grown. */
  readonly #done = new Map<DeltaId, { readonly child: DeltaId; readonly childRecords: number }>();

  constructor(parts: ReclaimerParts) {
    this.#parts = parts;
  }

  async reclaim(request: ReclaimRequest, signal?: AbortSignal): Promise<Reclaimed> {
    const sum = { bytes: 0, merged: 0, left: false };
    try {
      await this.#reclaim(request, signal, sum);
    } catch (error) {
      // What was broken off the next collection does.
      const isOver = error instanceof DiskError && error.code === 'interrupted';
      if (!isOver && !this.#isOneGone(request)) throw error;
      sum.left = true;
    }
    return sum;
  }

  /** Whether a delta that an operation was making has gone, because that failed meanwhile. */
  #isOneGone({ reached }: ReclaimRequest): boolean {
    return [...reached].some((id) => !this.#parts.files.exists(id));
  }

  async #reclaim(
    request: ReclaimRequest,
    signal: AbortSignal | undefined,
    sum: { bytes: number; merged: number; left: boolean },
  ): Promise<void> {
    await this.#finishChanges(request, signal);
    const hidden = this.#findHidden(request);
    const pressing = request.pressing === true || hidden.size >= MANY_HIDDEN;
    const how: How = { pressing, signal, leftAlone: new Set() };
    const isOver = (): boolean => signal?.aborted === true || request.isEnough?.() === true;
    for (const row of rowsOf(hidden)) {
      if (row.length < LONG_ROW * this.#parts.rowLength) continue;
      const merged = await this.#merge(row, hidden, how, SMALL_ROW);
      sum.merged += merged;
      // They are garbage, and what lay below them has another child: the next collection sees.
      if (merged > 0) for (const id of row.slice(-merged - 1)) hidden.delete(id);
      sum.left = isOver();
      if (sum.left) return;
    }
    for (const [delta, { child }] of hidden) {
      sum.bytes += await this.#punch(delta, child, how);
      sum.left = isOver();
      if (sum.left) return;
    }
    for (const delta of this.#done.keys())
      if (!request.reached.has(delta)) this.#done.delete(delta);
    for (const row of rowsOf(hidden)) {
      if (how.leftAlone.has(row[0]!)) continue;
      sum.merged += await this.#merge(row, hidden, how);
      sum.left = isOver();
      if (sum.left) return;
    }
  }

  /** Does the rest of what broke off: between the two copies of a header, and after it. */
  async #finishChanges(
    { reached }: ReclaimRequest,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const { files, volumes } = this.#parts;
    for (const id of reached) {
      const { current, otherBelow } = files.readHeader(id);
      if (otherBelow === undefined || current.below.kind !== 'delta') continue;
      await volumes.changes.changeBelow(id, current.below.id);
    }
    await volumes.changes.follow(signal);
  }

  #findHidden({ reached, labelled }: ReclaimRequest): Map<DeltaId, Hidden> {
    const { files, volumes } = this.#parts;
    const children = new Map<DeltaId, DeltaId[]>();
    const headers = new Map<DeltaId, { below: DeltaId | undefined; sealed: boolean }>();
    for (const id of reached) {
      const { below, sealed } = files.readHeader(id).current;
      headers.set(id, { below: below.kind === 'delta' ? below.id : undefined, sealed });
      if (below.kind === 'delta') children.set(below.id, [...(children.get(below.id) ?? []), id]);
    }
    const hidden = new Map<DeltaId, Hidden>();
    for (const [id, [child, ...others]] of children) {
      const header = headers.get(id);
      const seen = labelled.has(id) || others.length > 0;
      if (seen || header === undefined || child === undefined) continue;
      hidden.set(id, { child, ...header });
    }
    // A deleted snapshot that somebody still has open shows what lies below it without the child.
    for (const { delta, above } of volumes.changes.openLinks()) {
      if (hidden.get(delta)?.child !== above) hidden.delete(delta);
    }
    return hidden;
  }

  /** Gives back what the child overrides. @returns bytes. */
  async #punch(delta: DeltaId, child: DeltaId, { pressing, signal }: How): Promise<number> {
    const { files, volumes, run, room, onError } = this.#parts;
    // What a sync failed for looks committed, and is not.
    if (volumes.isSuspect(child)) return 0;
    // What was discarded a moment ago gives its space back only when that is durable.
    const isHead = volumes.describe(child)?.readOnly === false;
    const urgent = room() < FLUSH_BELOW;
    if (isHead && urgent) await volumes.flush(child);
    const childRecords = files.readHeader(child).current.committedRecords;
    const done = this.#done.get(delta);
    if (done?.child === child && done.childRecords === childRecords) return 0;
    volumes.settleReaders();
    const { folder, epoch } = files;
    const job = { kind: 'reclaim', delta, child, childRecords, urgent, pressing } as const;
    let bytes: number;
    try {
      ({ bytes } = await run({ folder, epoch, job }, { signal }));
    } catch (error) {
      // All the others do not wait for one that has lost a file or rotted.
      if (!(error instanceof DiskError) || !LEFT_ALONE.has(error.code)) throw error;
      onError('the blocks of a delta are not given back', error);
      return 0;
    }
    this.#done.set(delta, { child, childRecords });
    return bytes;
  }

  /**
   * Merges the part of a row that is worth it, if that takes no more than `most` bytes.
   * @returns how many deltas became garbage.
   */
  async #merge(
    row: readonly DeltaId[],
    hidden: ReadonlyMap<DeltaId, Hidden>,
    { pressing, signal, leftAlone }: How,
    most = Number.POSITIVE_INFINITY,
  ): Promise<number> {
    const { files, volumes, run, rowLength, room, onError } = this.#parts;
    const sizes = row.map((id) => files.storedSize(files.readHeader(id).current));
    const start = mergeStart(sizes, rowLength);
    if (start < 0) return 0;
    // The row is garbage only afterwards; a later collection finds it again.
    const bytes = sizes.slice(start).reduce((sum, size) => sum + size, 0);
    if (bytes > Math.min(most, room())) return 0;
    const part = row.slice(start);
    const { folder, epoch } = files;
    let made: DeltaId | undefined;
    try {
      const job = { kind: 'merge', row: part, pressing } as const;
      ({ made } = await run({ folder, epoch, job }, { signal }));
    } catch (error) {
      // The other rows, and whatever else there is to collect, do not wait for this one.
      if (!(error instanceof DiskError) || !LEFT_ALONE.has(error.code)) throw error;
      leftAlone.add(row[0]!);
      onError('a row of deltas is left as it is', error);
      return 0;
    }
    invariant(made !== undefined, 'a merge makes a delta');
    // If that fails the header may name it all the same: the next collection sees.
    await volumes.changes.replaceRow(hidden.get(part.at(-1)!)!.child, part, made);
    await volumes.changes.follow(signal);
    return part.length;
  }
}

/** Rows of sealed deltas, each the only child of the one before: oldest first. */
function rowsOf(hidden: ReadonlyMap<DeltaId, Hidden>): DeltaId[][] {
  const rows: DeltaId[][] = [];
  for (const [id, { below, sealed }] of hidden) {
    const continues = below !== undefined && hidden.get(below)?.sealed === true;
    if (!sealed || continues) continue;
    const row: DeltaId[] = [];
    for (let at: DeltaId | undefined = id; at !== undefined && hidden.get(at)?.sealed === true; ) {
      row.push(at);
      at = hidden.get(at)?.child;
    }
    rows.push(row);
  }
  return rows;
}
