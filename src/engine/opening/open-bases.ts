/** Bases that open volumes stand on: one index each, shared by all chains. Main thread only. */
import { invariant } from '../../common/assert.js';
import { Periodic } from '../../common/periodic.js';
import type { BaseSpec } from '../base.js';
import type { DeltaHeader } from '../delta/delta-layout.js';
import type { VolumesOptions } from './volumes-options.js';

/** How often bases that stay open are looked at, milliseconds. */
const WATCH_MS = 15_000;

export interface UsedBase {
  /** What volume rows name it by; never 0. */
  readonly index: number;
  readonly spec: BaseSpec;
}

interface OpenBasesOptions extends Pick<VolumesOptions, 'resolveBase' | 'publishBase' | 'onError'> {
  /** Whether somebody uses a volume that stands on it; one that rests is looked at when it is. */
  readonly isInUse: (id: string) => boolean;
}

export class OpenBases {
  readonly #options: OpenBasesOptions;
  readonly #open = new Map<string, UsedBase & { users: number }>();
  #nextIndex = 1;
  /** Those of which it was said that they changed. */
  readonly #changed = new Set<string>();
  readonly #watcher = new Periodic(WATCH_MS, () => this.#lookAtAll());

  constructor(options: OpenBasesOptions) {
    this.#options = options;
  }

  /** Says, once each, which bases change under disks that stay open. */
  watch(): void {
    this.#watcher.start();
  }

  async unwatch(): Promise<void> {
    await this.#watcher.stop();
  }

  async #lookAtAll(): Promise<void> {
    for (const id of this.#open.keys()) {
      try {
        await this.#options.resolveBase(id);
        this.#changed.delete(id);
      } catch (error) {
        if (this.#changed.has(id) || !this.#options.isInUse(id)) continue;
        this.#changed.add(id);
        this.#options.onError('a base image was changed under a disk that is open', error);
      }
    }
  }

  /** For a chain that is open already. @throws DiskError when its base is gone or has changed. */
  async verify(base: Pick<BaseSpec, 'id'> | undefined): Promise<void> {
    if (base !== undefined) await this.#options.resolveBase(base.id);
  }

  /**
   * Counts one more user; the first one's makes the base known to all threads.
   * @throws DiskError when the base is gone or has changed.
   */
  async use(id: string): Promise<UsedBase> {
    // Looked at also when it is open: what others know of the former one is no excuse.
    const spec = await this.#options.resolveBase(id);
    let base = this.#open.get(id);
    if (base === undefined) {
      base = { index: this.#nextIndex++, users: 0, spec };
      this.#open.set(id, base);
      this.#options.publishBase({ type: 'base', index: base.index, spec });
    }
    base.users += 1;
    return base;
  }

  /** The same for the base that a chain, top first, stands on; undefined for none. */
  async useUnder(chain: readonly DeltaHeader[]): Promise<UsedBase | undefined> {
    const below = chain.at(-1)?.below;
    return below?.kind === 'base' ? await this.use(below.id) : undefined;
  }

  /** One user less; the last one's closes the base on every thread. */
  release(id: string): void {
    const base = this.#open.get(id);
    invariant(base !== undefined && base.users > 0, `base ${id} is not open`);
    base.users -= 1;
    if (base.users > 0) return;
    this.#open.delete(id);
    this.#options.publishBase({ type: 'base', index: base.index });
  }
}
