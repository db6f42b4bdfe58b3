/**
 * The contract between the engine and the VM side: deltas as files, chains as open volumes. Main
 * thread only.
 */
import type { DeltaId } from './delta-id.js';

/** What lies directly below a delta. */
export type Below =
  | { readonly kind: 'none' }
  | { readonly kind: 'delta'; readonly id: DeltaId }
  | { readonly kind: 'base'; readonly id: string };

export type Allocation = 'dynamic' | 'static';

export interface DeltaSpec {
  readonly below: Below;
  /** Bytes. */
  readonly virtualSize: number;
  /** `static` takes all its space now (only with `below: none`) or fails with ENOSPC. */
  readonly allocation: Allocation;
}

export interface DeltaInfo extends DeltaSpec {
  readonly id: DeltaId;
  /** Bytes that this delta's own files take on the host. */
  readonly storedSize: number;
}

/** The delta files of a store. */
export interface Deltas {
  /**
   * Makes an empty delta; durable when it resolves. Reachable from no manifest yet: garbage until
   * then.
   * @param id of `newDeltaId`, for who wants to know it before; default: a new one.
   */
  create(spec: DeltaSpec, id?: DeltaId): Promise<DeltaId>;
  /** @throws DiskError `not-found` or `damaged`, naming the delta. */
  describe(id: DeltaId): DeltaInfo;
  /**
   * Whether nothing was ever written to it or discarded in it: it shows what lies below.
   * @throws DiskError `not-found`.
   */
  isUntouched(id: DeltaId): boolean;
  /**
   * Deletes deltas that the caller made and that no manifest ever named: work that failed or was
   * cancelled. Ids that are gone already are skipped.
   */
  discard(ids: readonly DeltaId[]): Promise<void>;
  /** Every delta in the store, referenced or not. */
  list(): Promise<DeltaId[]>;
  /**
   * Deltas that neither `referenced` nor anything above it stands on, and leftovers of interrupted
   * work, go to the trash. Deltas that are open stay. Whoever is about to name a delta counts it
   * among `referenced`, and makes none meanwhile.
   * @throws DiskError when a referenced chain cannot be read: nothing is removed then.
   */
  collect(
    referenced: ReadonlySet<DeltaId>,
    dryRun: boolean,
  ): Promise<{ readonly files: string[]; readonly bytes: number }>;
}

export interface OpenVolume {
  /** Index that I/O threads know it by; becomes the FUSE file handle. */
  readonly handle: number;
  readonly size: number;
  readonly readOnly: boolean;
  readonly allocatedSize: number;
}

/**
 * One head that moves: for a snapshot `to` lies directly on `from`; for a restore it lies
 * elsewhere.
 */
export interface HeadSwitch {
  readonly from: DeltaId;
  readonly to: DeltaId;
}

export interface CopyProgress {
  readonly doneBytes: number;
  readonly totalBytes: number;
}

/** What `Engine.reclaim` needs to know of the store. */
export interface ReclaimRequest {
  /** Every delta that is in use. */
  readonly reached: ReadonlySet<DeltaId>;
  /** Those among them that something names: heads, snapshots, operations under way. */
  readonly labelled: ReadonlySet<DeltaId>;
  /** Somebody waits for it: it takes more of the time beside disks in use. Default false. */
  readonly pressing?: boolean;
  /** Asked after each step: whether the rest is to be left for the next time. Default never. */
  readonly isEnough?: () => boolean;
}

export interface Reclaimed {
  /** Given back. */
  readonly bytes: number;
  /** Deltas that became garbage. */
  readonly merged: number;
  /** Whether there is more to do. */
  readonly left: boolean;
}

/** Chains that are open. A chain is named by its top delta. */
export interface Volumes {
  /**
   * Opens the chain under `top`, or counts one more user of it. A head is opened writable, a sealed
   * delta read-only.
   */
  acquire(top: DeltaId, options: { readonly writable: boolean }): Promise<OpenVolume>;
  /** One user less; with none the volume is flushed and closed (after a short rest). */
  release(volume: Pick<OpenVolume, 'handle'>): void;
  isOpen(top: DeltaId): boolean;
  /**
   * Flushes and closes the chain under `top` at once instead of after its rest.
   * @throws DiskError `busy` while somebody uses it.
   */
  close(top: DeltaId): Promise<void>;
  /** The same for all chains that stand on this base. */
  closeOn(base: string): Promise<void>;
  /**
   * Moves heads at one instant: calls `commit` (which must be short and synchronous: one rename),
   * closes the gates of all disks named, switches, opens the gates, makes everything durable. If
   * `commit` throws, nothing has changed. Works whether the volumes are open or not. Heads
   * that become snapshots are flushed before: until all is durable no flush of them ends. A head of
   * another size can only take the place of one that is closed (`busy` else).
   *
   * `settle` makes the commit durable (fsync of the folder); flushes of the disks are not
   * acknowledged before it is done.
   */
  switchHeads(
    switches: readonly HeadSwitch[],
    commit: () => void,
    settle?: () => Promise<void>,
  ): Promise<void>;
  /** Makes everything acknowledged so far in this chain's head durable. */
  flush(top: DeltaId): Promise<void>;
  /**
   * Copies everything visible under `source` into the fresh delta `target` (below: none) on a
   * background thread: reflinks where the host file system has them, only allocated ranges
   * otherwise.
   */
  copy(
    source: DeltaId,
    target: DeltaId,
    options: {
      readonly signal?: AbortSignal;
      readonly onProgress?: (progress: CopyProgress) => void;
    },
  ): Promise<void>;
}

/** Something that is wrong with a delta. */
export interface DeltaFinding {
  readonly delta: DeltaId;
  readonly part: 'header' | 'tuples' | 'data' | 'sums';
  /** What is wrong, without the delta's name. */
  readonly message: string;
  /** Absolute. */
  readonly file: string;
  /** Bytes of that file. */
  readonly offset?: number;
  readonly length?: number;
  /** Blocks of the disk, where it is known which: 4 KiB each. */
  readonly block?: number;
  readonly blocks?: number;
  /** `copy`: the other copy is intact, and `repairHeader` writes this one anew from it. */
  readonly remedy?: 'copy';
  /** What to do, where it is not what is done about damage. */
  readonly hint?: string;
}

export interface CheckedDeltas {
  readonly findings: readonly DeltaFinding[];
  /** Findings that are only counted. */
  readonly more: number;
  readonly bytesRead: number;
  /** Sealed deltas that have no checksums yet. */
  readonly notSummed: readonly DeltaId[];
}

/** What the background thread made of the sealed deltas without checksums. */
export interface Summed {
  /** Deltas that have them now. */
  readonly deltas: number;
  /** Why others could not be summed: damage that a check describes. */
  readonly problems: readonly string[];
  /** Whether some are to be tried again: blocks were given back meanwhile. */
  readonly again: boolean;
}

export interface Compacted {
  readonly bytesRead: number;
  /** What could not be read, and stays as it is. */
  readonly problems: readonly string[];
}

export interface BlockRange {
  readonly block: number;
  readonly blocks: number;
}

/** Looking after what is stored. Works while disks are in use; changes only what it says. */
export interface StoreHealth {
  /**
   * Checks deltas, which the caller keeps from being removed or reclaimed; `deep` reads every block
   * that has a checksum. @throws DiskError `interrupted`.
   */
  check(
    request: { deltas: readonly DeltaId[]; deep: boolean },
    work: JobWork,
  ): Promise<CheckedDeltas>;
  /**
   * For each delta and each range: a bit for every block (lowest first) that the delta has a tuple
   * of. A delta that can't be read answers for nothing.
   */
  answered(deltas: readonly DeltaId[], ranges: readonly BlockRange[]): Promise<Uint8Array[][]>;
  /** Writes a damaged header copy anew from the intact one. @returns whether there was one. */
  repairHeader(id: DeltaId): Promise<boolean>;
  /** Computes missing checksums now. */
  sum(work: JobWork): Promise<Summed>;
  /**
   * Gives back the space of zeroes that were written, in sealed deltas that the caller keeps from
   * being removed. @throws DiskError `interrupted`; `failed` when the host refuses.
   */
  compact(deltas: readonly DeltaId[], work: JobWork): Promise<Compacted>;
}

export interface Engine {
  readonly deltas: Deltas;
  readonly volumes: Volumes;
  /**
   * Makes a range of a fresh head that nobody knows yet read as zero, whatever lies below it.
   * Durable when it resolves, and the head closed again. Offset and length are bytes.
   */
  zero(top: DeltaId, offset: number, length: number): Promise<void>;
  /**
   * Tidies up below the labels: gives back blocks that nobody can see any more (those that the only
   * child of a delta without a label overrides), and merges long rows of such deltas into one,
   * which leaves the row as garbage. Runs on a background thread; safe to break off and to repeat.
   */
  reclaim?(request: ReclaimRequest, signal?: AbortSignal): Promise<Reclaimed>;
  readonly health?: StoreHealth;
}

/** How a job is ended early, who hears of it, and who is to be let in front. */
export interface JobWork {
  readonly signal?: { readonly aborted: boolean } | undefined;
  readonly onProgress?: ((doneBytes: number, totalBytes: number) => void) | undefined;
  /** A number that changes whenever somebody else is served: see `servedByOthers`. */
  readonly served?: (() => number) | undefined;
  /** Somebody waits for it, or it is far behind: others are let in front less. Default false. */
  readonly pressing?: boolean | undefined;
}
