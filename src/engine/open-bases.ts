/** Bases that open volumes stand on: one index each, shared by all chains. Main thread only. */
import { invariant } from '../common/assert.js';
import type { BaseSpec } from './base.js';
import type { BaseNotice } from './base-table.js';

export interface UsedBase {
  /** What volume rows name it by; never 0. */
  readonly index: number;
  readonly spec: BaseSpec;
}

export class OpenBases {
  readonly #resolve: (id: string) => Promise<BaseSpec>;
  readonly #publish: (notice: BaseNotice) => void;
  readonly #open = new Map<string, UsedBase & { users: number }>();
  #nextIndex = 1;

  constructor(resolve: (id: string) => Promise<BaseSpec>, publish: (notice: BaseNotice) => void) {
    this.#resolve = resolve;
    this.#publish = publish;
  }

  /**
   * Counts one more user; the first one's makes the base known to all threads.
   * @throws DiskError when the base is gone or has changed.
   */
  async use(id: string): Promise<UsedBase> {
    const spec = this.#open.get(id)?.spec ?? (await this.#resolve(id));
    let base = this.#open.get(id);
    if (base === undefined) {
      base = { index: this.#nextIndex++, users: 0, spec };
      this.#open.set(id, base);
      this.#publish({ type: 'base', index: base.index, spec });
    }
    base.users += 1;
    return base;
  }

  /** One user less; the last one's closes the base on every thread. */
  release(id: string): void {
    const base = this.#open.get(id);
    invariant(base !== undefined && base.users > 0, `base ${id} is not open`);
    base.users -= 1;
    if (base.users > 0) return;
    this.#open.delete(id);
    this.#publish({ type: 'base', index: base.index });
  }
}
