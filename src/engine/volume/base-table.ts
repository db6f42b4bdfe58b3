/** The bases that one thread has open, by the index that volume rows name them with. */
import { invariant } from '../../common/assert.js';
import type { Base, BaseSpec, OpenBase } from '../base.js';

/** What the main thread tells every thread before a volume that stands on the base is published. */
export interface BaseNotice {
  readonly type: 'base';
  readonly index: number;
  /** Absent: nobody stands on it any more. */
  readonly spec?: BaseSpec;
}

export class BaseTable {
  readonly #specs = new Map<number, BaseSpec>();
  readonly #open = new Map<number, Base>();
  readonly #openBase: OpenBase;
  readonly #receive: () => void;

  /** @param receive takes in the notices that wait for this thread (each ends in `apply`). */
  constructor(openBase: OpenBase, receive: () => void) {
    this.#openBase = openBase;
    this.#receive = receive;
  }

  apply(notice: BaseNotice): void {
    if (notice.spec !== undefined) {
      this.#specs.set(notice.index, notice.spec);
      return;
    }
    this.#specs.delete(notice.index);
    this.#open.get(notice.index)?.close();
    this.#open.delete(notice.index);
  }

  /**
   * The base of a volume row; opened on this thread at first use. @throws DiskError when it can't
   * be opened.
   */
  get(index: number): Base {
    const known = this.#open.get(index);
    if (known !== undefined) return known;
    this.#receive();
    const spec = this.#specs.get(index);
    invariant(spec !== undefined, `base ${index} was published before its notice`);
    const base = this.#openBase(spec);
    this.#open.set(index, base);
    return base;
  }

  /** Takes in what waits, so that a base that nobody stands on is closed. Between requests only. */
  settle(): void {
    this.#receive();
  }

  close(): void {
    for (const base of this.#open.values()) base.close();
    this.#open.clear();
  }
}
