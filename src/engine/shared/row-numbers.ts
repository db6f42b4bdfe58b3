/** Which rows of the volume table are in use. Main thread only. */
import { DiskError } from '../../common/errors.js';
import { MAX_VOLUMES } from './shared-memory.js';

export class RowNumbers {
  readonly #free: number[] = [];
  #next = 0;

  /** Rows that were ever used are numbered from 0 up to here. */
  get used(): number {
    return this.#next;
  }

  /** @throws DiskError `busy` when all are in use. */
  take(): number {
    const free = this.#free.pop();
    if (free !== undefined) return free;
    if (this.#next >= MAX_VOLUMES) {
      throw new DiskError('busy', `more than ${MAX_VOLUMES} disks are open`, { errno: 'ENFILE' });
    }
    return this.#next++;
  }

  give(index: number): void {
    this.#free.push(index);
  }

  /** Sets one row aside that an earlier process had in use. */
  claim(index: number): void {
    const place = this.#free.indexOf(index);
    if (place !== -1) this.#free.splice(place, 1);
    for (; this.#next <= index; this.#next += 1) {
      if (this.#next < index) this.#free.push(this.#next);
    }
  }
}
