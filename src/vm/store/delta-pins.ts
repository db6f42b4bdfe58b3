/** What running operations need although no manifest names it (yet): deltas and bases, by id. */
import { SharedLock } from '../../common/mutex.js';

/** Ids that must not be removed now. */
export class PinSet {
  readonly #counts = new Map<string, number>();
  readonly #watchers = new Set<Set<string>>();

  pin(id: string): void {
    this.#counts.set(id, (this.#counts.get(id) ?? 0) + 1);
    for (const seen of this.#watchers) seen.add(id);
  }

  unpin(id: string): void {
    const count = (this.#counts.get(id) ?? 0) - 1;
    if (count > 0) this.#counts.set(id, count);
    else this.#counts.delete(id);
  }

  /**
   * Runs `task` with a set of all that is pinned now or at any time until it ends: what an
   * operation pinned and committed in the meantime stays in it.
   */
  async watch<T>(task: (seen: ReadonlySet<string>) => Promise<T>): Promise<T> {
    const seen = new Set(this.#counts.keys());
    this.#watchers.add(seen);
    try {
      return await task(seen);
    } finally {
      this.#watchers.delete(seen);
    }
  }
}

/**
 * Stands between operations that make deltas and the garbage collection that removes them.
 *
 * INVARIANT: a delta or base is pinned before the call that made it gives up its share of `making`,
 * so whoever excludes `making` sees each either pinned or named by a manifest, or it is garbage.
 */
export class DeltaPins {
  /** Shared while a delta or base record is being made; excluded while garbage is removed. */
  readonly making = new SharedLock();
  readonly deltas = new PinSet();
  readonly bases = new PinSet();
  /** Pinned before their files are made. */
  readonly memory = new PinSet();
}
