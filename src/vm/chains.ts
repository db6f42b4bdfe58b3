/** Chains as the VM side sees them: which deltas lie below a label, how many, and on which base. */
import { DiskError } from '../common/errors.js';
import type { DeltaId } from '../engine/delta-id.js';
import type { DeltaInfo, Deltas } from '../engine/engine.js';

/** Deltas in one chain (design: "Limits that are stated, checked and tested"). */
export const MAX_DEPTH = 1000;
const REMEMBERED = 20_000;
const REMEMBERED_SEALED = 1000;
/** How long what is below a head is taken to be as it was, milliseconds: it only gets smaller. */
const SEALED_MS = 1000;

export interface ChainFacts {
  /** Deltas, the top one included. */
  readonly depth: number;
  /** Bytes of the host that they take together. */
  readonly bytes: number;
  /** Id of the base below them. */
  readonly base: string | undefined;
}

const NOTHING: ChainFacts = { depth: 0, bytes: 0, base: undefined };

export class Chains {
  readonly #deltas: Deltas;
  /** Never too small: the engine may merge deltas below, which only makes a chain shorter. */
  readonly #depths = new Map<DeltaId, number>();
  readonly #sealed = new Map<DeltaId, { readonly facts: ChainFacts; readonly until: number }>();

  constructor(deltas: Deltas) {
    this.#deltas = deltas;
  }

  /** @throws DiskError `damaged`, naming the delta. */
  facts(top: DeltaId): ChainFacts {
    const { below, storedSize } = this.#describe(top, 0);
    const rest = below.kind === 'delta' ? this.#sealedFacts(below.id) : NOTHING;
    const base = below.kind === 'base' ? below.id : rest.base;
    const facts = { depth: rest.depth + 1, bytes: rest.bytes + storedSize, base };
    this.#rememberDepth(top, facts.depth);
    return facts;
  }

  /** Many heads stand on one sealed delta, and there may be hundreds below that. */
  #sealedFacts(top: DeltaId): ChainFacts {
    const known = this.#sealed.get(top);
    if (known !== undefined && performance.now() < known.until) return known.facts;
    const facts = this.#walk(top);
    if (this.#sealed.size >= REMEMBERED_SEALED) this.#sealed.clear();
    this.#sealed.set(top, { facts, until: performance.now() + SEALED_MS });
    return facts;
  }

  /** Bytes of the disk that it was made for. @throws DiskError `damaged`, naming the delta. */
  sizeOf(id: DeltaId): number {
    return this.#describe(id, 0).virtualSize;
  }

  #walk(top: DeltaId): ChainFacts {
    let depth = 0;
    let bytes = 0;
    for (let id = top; ; ) {
      const info = this.#describe(id, depth);
      depth += 1;
      bytes += info.storedSize;
      if (info.below.kind !== 'delta') {
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
    if (depth !== undefined) this.#rememberDepth(child, depth + 1);
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

  #rememberDepth(id: DeltaId, depth: number): void {
    if (this.#depths.size >= REMEMBERED) this.#depths.clear();
    this.#depths.set(id, depth);
  }
}
