/**
 * Hands the checksums of open deltas to the threads that verify what they read. Main thread only.
 * They appear when a sealed delta is opened that has some, or when those of an open one are done.
 */
import { crc32cOf } from '../../common/checksum.js';
import { DiskError, errnoName } from '../../common/errors.js';
import type { DeltaFiles } from '../delta/delta-files.js';
import { hasSums, SumsReader } from '../delta/sums-file.js';
import type { DeltaId } from '../delta-id.js';
import type { FoundRot } from '../volume/read-verifier.js';
import type { DeltaTable } from './delta-table.js';

/** Places that are told one by one; a rotten disk has many. */
const MOST_TOLD = 1000;

export interface PublishedSumsParts {
  readonly files: DeltaFiles;
  readonly table: DeltaTable;
  readonly onError: (what: string, error: unknown) => void;
}

export class PublishedSums {
  readonly #parts: PublishedSumsParts;
  /** Deltas whose checksums cannot be used: said once. */
  readonly #useless = new Set<DeltaId>();
  readonly #told = new Set<string>();

  constructor(parts: PublishedSumsParts) {
    this.#parts = parts;
  }

  /** Every open sealed delta that has checksums, and whose readers do not know them yet. */
  publish(): void {
    const { files, table } = this.#parts;
    for (const id of table.withoutSums()) {
      if (this.#useless.has(id) || !hasSums(files, id)) continue;
      try {
        const sums = SumsReader.open(files, files.readHeader(id).current);
        if (sums === undefined) continue;
        const seed = crc32cOf(Buffer.from(id, 'hex'));
        table.publishSums(id, { fd: sums.descriptor, slots: sums.header.slots, seed });
      } catch (error) {
        if (!(error instanceof DiskError) && errnoName(error) === undefined) throw error;
        this.#useless.add(id);
        this.#parts.onError(`reads of delta ${id} are not verified`, error);
      }
    }
  }

  /** What a thread found is told once for each place. */
  found({ delta, slot, part }: FoundRot): void {
    const key = `${delta} ${slot} ${part}`;
    if (this.#told.has(key) || this.#told.size >= MOST_TOLD) return;
    this.#told.add(key);
    const { files, table } = this.#parts;
    const id = table.idOf(delta);
    if (id === undefined) return;
    const file = part === 'data' ? files.dataPath(id, 1) : files.sumsPath(id);
    const what =
      part === 'data'
        ? `${file}: slot ${slot} is not what was sealed: its readers get EIO`
        : `${file}: the checksum of slot ${slot} is damaged: its data is served unverified`;
    const hint = 'layerdisk check --deep names the block and who sees it';
    this.#parts.onError(what, new DiskError('damaged', what, { errno: 'EIO', hint }));
  }
}
