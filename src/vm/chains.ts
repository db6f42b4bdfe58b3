/** Chains as the VM side sees them: which deltas lie below a label, how many, and on which base. */
import { DiskError } from '../common/errors.js';
import type { DeltaId } from '../engine/delta-id.js';
import type { DeltaInfo, Deltas } from '../engine/engine.js';

/** Deltas in one chain (design: "Limits that are stated, checked and tested"). */
export const MAX_DEPTH = 1000;
const REMEMBERED = 20_000;

export interface ChainFacts {
  /** Deltas, the top one included. */
  readonly depth: number;
  /** Bytes of the host that they take together. */
  readonly bytes: number;
  /** Id of the base below them. */
  readonly base: string | undefined;
}

export class Chains {
  readonly #deltas: Deltas;
  /** Never too small: the engine may merge deltas below, which only makes a chain shorter. */
  readonly #depths = new Map<DeltaId, number>();

  constructor(deltas: Deltas) {
    this.#deltas = deltas;
  }

  /** @throws DiskError `damaged`, naming the delta. */
  facts(top: DeltaId): ChainFacts {
    let depth = 0;
    let bytes = 0;
    for (let id = top; ; ) {
      const info = this.#describe(id, depth);
      depth += 1;
      bytes += info.storedSize;
      if (info.below.kind !== 'delta') {
        this.#remember(top, depth);
        return { depth, bytes, base: info.below.kind === 'base' ? info.below.id : undefined };
      }
      id = info.below.id;
    }
  }

  /**
   * Checks that one more delta may go on top.
   * @param what names the disk, as `web/disk0`.
   * @throws DiskError `not-supported`.
   */
  checkRoom(top: DeltaId, what: string): void {
    const known = this.#depths.get(top);
    if (known !== undefined && known < MAX_DEPTH) return;
    if (this.facts(top).depth < MAX_DEPTH) return;
    throw new DiskError(
      'not-supported',
      `the chain of ${what} has ${MAX_DEPTH} deltas, which is the limit`,
      { hint: 'delete snapshots that are not needed, or go on with a full clone' },
    );
  }

  /**
   * Whether `top` shows what `bottom` showed when it was sealed: nothing was written in between.
   */
  isUntouchedSince(top: DeltaId, bottom: DeltaId): boolean {
    for (let id = top, depth = 0; id !== bottom; depth += 1) {
      const { below } = this.#describe(id, depth);
      if (below.kind !== 'delta' || !this.#deltas.isUntouched(id)) return false;
      id = below.id;
    }
    return true;
  }

  /** Says that `child` was made on top of `parent`: spares a walk at the next snapshot. */
  noteChild(parent: DeltaId, child: DeltaId): void {
    const depth = this.#depths.get(parent);
    if (depth !== undefined) this.#remember(child, depth + 1);
  }

  /**
   * Adds `tops` and everything below them to `reached`, and the bases to `bases`.
   * @throws DiskError `damaged` when a delta is missing or broken: what lies below it is unknown
   * then.
   */
  reach(tops: Iterable<DeltaId>, reached: Set<DeltaId>, bases: Set<string>): void {
    for (const top of tops) {
      for (let id: DeltaId | undefined = top; id !== undefined && !reached.has(id); ) {
        const { below } = this.#describe(id, 0);
        reached.add(id);
        if (below.kind === 'base') bases.add(below.id);
        id = below.kind === 'delta' ? below.id : undefined;
      }
    }
  }

  #describe(id: DeltaId, depth: number): DeltaInfo {
    if (depth > MAX_DEPTH) {
      throw new DiskError('damaged', `the chain below delta ${id} does not end`, { errno: 'EIO' });
    }
    try {
      return this.#deltas.describe(id);
    } catch (error) {
      if (!(error instanceof DiskError) || error.code !== 'not-found') throw error;
      throw new DiskError('damaged', `delta ${id}, which a VM needs, is not in the store`, {
        hint: 'bring its files back from a backup; layerdisk check names who needs it',
        errno: 'EIO',
        cause: error,
      });
    }
  }

  #remember(id: DeltaId, depth: number): void {
    if (this.#depths.size >= REMEMBERED) this.#depths.clear();
    this.#depths.set(id, depth);
  }
}
