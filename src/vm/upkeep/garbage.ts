/** Garbage: deltas, base records and memory of guests that no manifest reaches. */
import { relative, resolve } from 'node:path';
import { DiskError } from '../../common/errors.js';
import { Mutex } from '../../common/mutex.js';
import type { DeltaId } from '../../engine/delta-id.js';
import type { Reclaimed } from '../../engine/engine.js';
import { unsettledError } from '../../storage/atomic-write.js';
import type { VmContext } from '../context.js';
import { labelledDeltas, memoryStates } from '../store/manifest.js';
import { findLostVms } from './lost-vms.js';

/** A background collection gets at most one part in this many of the time. */
const SHARE = 20;

/** How long at least after a collection that left something that others wait for, milliseconds. */
const SHORT_RETRY_MS = 1000;

/** Of one collection that was asked for: others go on working, and leave more and more to merge. */
const MOST_PASSES = 4;

const NOTHING = { bytes: 0, merged: 0 } as const;

/** When the background collection runs; milliseconds. */
export interface GarbagePace {
  /** Changes come in rows: how long after the first of them. */
  readonly restMs: number;
  /** How long after a collection that had to leave something, because it was open. */
  readonly retryMs: number;
  /** How long things stay in the trash. */
  readonly trashAgeMs: number;
}

export const USUAL_PACE: GarbagePace = {
  restMs: 2000,
  retryMs: 30_000,
  trashAgeMs: 10 * 60 * 1000,
};

export interface Collected {
  /** Names of what is or would be removed, relative to the store. */
  readonly files: readonly string[];
  readonly bytes: number;
}

/** What is in use. */
interface Reach {
  readonly deltas: Set<DeltaId>;
  /** Heads and snapshots: the deltas that manifests name. */
  readonly labelled: Set<DeltaId>;
  readonly bases: Set<string>;
  readonly memory: Set<string>;
}

/** What was pinned at any time since the collection began. */
interface Pinned {
  readonly deltas: ReadonlySet<DeltaId>;
  readonly bases: ReadonlySet<string>;
  readonly memory: ReadonlySet<string>;
}

/**
 * INVARIANT: nothing is removed while a manifest can't be read or a delta in use can't be
 * described: what they refer to is unknown then; nor by itself in a store that seems to have lost
 * its VMs.
 */
export class GarbageCollector {
  readonly #context: VmContext;
  readonly #onProblem: (error: unknown) => void;
  readonly #pace: GarbagePace;
  readonly #mutex = new Mutex();
  #timer: NodeJS.Timeout | undefined;
  /** When the next collection begins. */
  #due = 0;
  #lastMs = 0;
  #lastEnd = 0;
  #stopped = false;
  readonly #ended = new AbortController();
  /** Those who wait for the collection under way. */
  #waiting = 0;
  #reclaiming: AbortController | undefined;
  /** Why nothing is collected until somebody asks for it. */
  #lost: Promise<DiskError | undefined> = Promise.resolve(undefined);

  constructor(context: VmContext, onProblem: (error: unknown) => void, pace: GarbagePace) {
    this.#context = context;
    this.#onProblem = onProblem;
    this.#pace = pace;
  }

  /** Collects in the background what an earlier run left. */
  start(): void {
    this.#lost = findLostVms(this.#context);
    this.#lost.then((problem) => problem && this.#onProblem(problem), this.#onProblem);
    this.schedule();
  }

  /** Collects in the background, soon; when somebody waits for room, as soon as it may. */
  schedule(): void {
    if (!this.#context.room.isUrgent) {
      this.#scheduleIn(Math.max(this.#pace.restMs, SHARE * this.#lastMs));
      return;
    }
    // What is garbage now gives more than what reclaiming looks for, which can go on afterwards.
    this.#reclaiming?.abort();
    this.hurry();
  }

  /**
   * The store runs full: garbage and trash that were to stay for a while go now. Half of the time
   * is for others all the same.
   */
  hurry(): void {
    this.#scheduleIn(Math.max(0, this.#lastEnd + this.#lastMs - performance.now()));
  }

  #scheduleIn(delayMs: number): void {
    const due = performance.now() + delayMs;
    if (this.#stopped || (this.#timer !== undefined && this.#due <= due)) return;
    clearTimeout(this.#timer);
    this.#due = due;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#collectSoon().catch(this.#onProblem);
    }, delayMs);
    this.#timer.unref();
  }

  async #collectSoon(): Promise<void> {
    if ((await this.#lost) !== undefined) return;
    const { room } = this.#context;
    const keep = room.isShort ? Number.POSITIVE_INFINITY : Date.now() - this.#pace.trashAgeMs;
    await this.#collect(false, { trashBefore: keep, asked: false });
  }

  /** Starts no further collection and waits for the one under way. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#ended.abort();
    clearTimeout(this.#timer);
    await this.#mutex.run(async () => undefined);
  }

  /**
   * Collects now, and empties the trash; `dryRun` only tells what would go.
   * @throws DiskError `damaged` while it can't be known what is in use.
   */
  async collect(dryRun: boolean): Promise<Collected> {
    const how = { trashBefore: Number.POSITIVE_INFINITY, asked: true };
    if (!dryRun) this.#lost = Promise.resolve(undefined);
    const files: string[] = [];
    let bytes = 0;
    for (let pass = 1; pass <= MOST_PASSES; pass += 1) {
      const one = await this.#collect(dryRun, how);
      files.push(...one.files);
      bytes += one.bytes;
      // A row that was merged is garbage only then.
      if (one.merged === 0) break;
    }
    return { files, bytes };
  }

  /** What is removed goes to the trash and stays there for a while. @throws DiskError as above. */
  async collectIntoTrash(): Promise<Collected> {
    return this.#collect(false, { trashBefore: 0, asked: true });
  }

  /** Runs `task` while nothing is collected, reclaimed or merged. */
  quiet<T>(task: () => Promise<T>): Promise<T> {
    return this.#alone(task);
  }

  #alone<T>(task: () => Promise<T>): Promise<T> {
    this.#waiting += 1;
    return this.#mutex.run(() => {
      this.#waiting -= 1;
      return task();
    });
  }

  /** Whether a collection is due anyway. */
  get isDue(): boolean {
    return this.#timer !== undefined;
  }

  /** @param asked somebody waits for it: it takes more of the time, and does all there is to do. */
  #collect(
    dryRun: boolean,
    { trashBefore, asked }: { readonly trashBefore: number; readonly asked: boolean },
  ): Promise<Collected & { readonly merged: number }> {
    const { store, pins, room } = this.#context;
    return this.#alone(async () => {
      const start = performance.now();
      const trashed = dryRun ? await store.trash.list() : await store.trash.empty(trashBefore);
      const { reclaimed, merged, ...unreachable } = await pins.deltas.watch((deltas) =>
        pins.bases.watch((bases) =>
          pins.memory.watch(async (memory) => {
            const reach = emptyReach();
            const swept = await this.#sweep(dryRun, reach, { deltas, bases, memory });
            if (!dryRun) {
              await store.trash.empty(trashBefore);
              // Whoever waits for room need not wait for the next look, or for what follows.
              room.look();
            }
            const done = dryRun ? NOTHING : await this.#reclaim(reach, deltas, asked);
            return { ...swept, reclaimed: done.bytes, merged: done.merged };
          }),
        ),
      );
      if (!dryRun) {
        await store.trash.empty(trashBefore);
        room.look();
      }
      this.#lastEnd = performance.now();
      this.#lastMs = performance.now() - start;
      return {
        files: [...trashed.map((each) => `trash/${each.name}`), ...unreachable.files],
        bytes: trashed.reduce((sum, each) => sum + each.bytes, unreachable.bytes + reclaimed),
        merged,
      };
    });
  }

  /**
   * Gives back what deltas without a label hold under their only child. A delta that has lost its
   * label never gets one again, so what is known here stays true while others go on. What takes
   * long lets in who waits: a check, or a collection of what became garbage meanwhile.
   */
  async #reclaim(
    reach: Reach,
    pinned: ReadonlySet<DeltaId>,
    asked: boolean,
  ): Promise<Pick<Reclaimed, 'bytes' | 'merged'>> {
    const labelled = new Set([...reach.labelled, ...pinned]);
    const isEnough = (): boolean => !asked && this.#waiting > 0;
    const request = { reached: reach.deltas, labelled, pressing: asked, isEnough };
    this.#reclaiming = new AbortController();
    const signal = AbortSignal.any([this.#ended.signal, this.#reclaiming.signal]);
    const done = await this.#context.engine.reclaim?.(request, signal).finally(() => {
      this.#reclaiming = undefined;
    });
    if (done === undefined) return NOTHING;
    // What was merged is garbage now.
    if (done.merged > 0 || done.left) this.schedule();
    return done;
  }

  async #sweep(dryRun: boolean, reach: Reach, pinnedNow: Pinned): Promise<Collected> {
    const { engine, chains, bases, pins, store, room } = this.#context;
    const { deltas, bases: baseIds } = reach;
    await this.#reachAll(reach);
    if (!dryRun) await this.#settleManifests();
    return pins.making.exclusive(async () => {
      // What was pinned by an operation that failed since may be gone again.
      const there = new Set(await engine.deltas.list());
      const pinned = [...pinnedNow.deltas].filter((id) => there.has(id));
      chains.reach(pinned, deltas, baseIds);
      const { files, bytes } = await engine.deltas.collect(deltas, dryRun);
      const left = dryRun ? [] : (await engine.deltas.list()).filter((id) => !deltas.has(id));
      if (left.length > 0) {
        const { retryMs } = this.#pace;
        const soon = Math.max(SHORT_RETRY_MS, SHARE * this.#lastMs);
        this.#scheduleIn(room.isUrgent ? Math.min(retryMs, soon) : retryMs);
      }
      for (const id of this.#basesBelow(left)) baseIds.add(id);
      const unused = bases.list().filter((id) => !baseIds.has(id) && !pinnedNow.bases.has(id));
      for (const id of unused) if (!dryRun) bases.remove(id);
      if (unused.length > 0 && !dryRun) {
        await store.files.syncFolder(store.layout.bases, 'base.sync-folder');
      }
      const memory = await this.#sweepMemory(dryRun, reach, pinnedNow);
      const { root } = store.layout;
      const names = files.map((file) => relative(root, resolve(root, file)));
      return {
        files: [...names, ...unused.map((id) => `bases/${id}.json`), ...memory.files],
        bytes: bytes + memory.bytes,
      };
    });
  }

  /**
   * What open disks of deleted VMs stand on. Their base is looked at as long as they are open: a
   * record that is gone would be told as an image that somebody changed.
   */
  #basesBelow(left: readonly DeltaId[]): string[] {
    return left.flatMap((id) => {
      try {
        const { below } = this.#context.engine.deltas.describe(id);
        return below.kind === 'base' ? [below.id] : [];
      } catch (error) {
        // Closed and removed meanwhile, or broken and in nobody's use: it needs no base.
        if (error instanceof DiskError) return [];
        throw error;
      }
    });
  }

  async #sweepMemory(dryRun: boolean, reach: Reach, pinnedNow: Pinned): Promise<Collected> {
    const { memory, store } = this.#context;
    const unused = memory.list().filter((id) => !reach.memory.has(id) && !pinnedNow.memory.has(id));
    let bytes = 0;
    for (const id of unused) {
      bytes += await memory.storedSize(id);
      if (!dryRun) memory.remove(id);
    }
    if (unused.length > 0 && !dryRun) {
      await store.files.syncFolder(store.layout.memory, 'memory.sync-folder');
    }
    return { files: unused.map((id) => memory.nameOf(id)), bytes };
  }

  /**
   * A manifest that was just changed or removed, or whose folder could not be synced then, may be
   * as before after a power cut: nothing that it named may be gone by then.
   */
  async #settleManifests(): Promise<void> {
    const { files, layout } = this.#context.store;
    try {
      await files.syncFolder(layout.vms, 'gc.sync-folder');
    } catch (error) {
      throw unsettledError(layout.vms, error);
    }
  }

  /** Everything that manifests reach. */
  async #reachAll({ deltas, labelled, bases, memory }: Reach): Promise<void> {
    const { store, chains } = this.#context;
    const [damaged] = store.catalog.damaged();
    if (damaged !== undefined) {
      throw new DiskError(
        'damaged',
        `nothing is collected while a manifest can't be read: ${damaged.problem.message}`,
        { hint: 'layerdisk check says what to do', cause: damaged.problem },
      );
    }
    for await (const manifest of store.eachManifest(store.catalog.list())) {
      const labels = labelledDeltas(manifest);
      for (const id of labels) labelled.add(id);
      chains.reach(labels, deltas, bases);
      for (const { id } of memoryStates(manifest)) memory.add(id);
    }
  }
}

function emptyReach(): Reach {
  return { deltas: new Set(), labelled: new Set(), bases: new Set(), memory: new Set() };
}
