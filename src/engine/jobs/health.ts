/**
 * Looking after what is stored: checksums of sealed deltas soon after they were sealed, checks,
 * repairs. Main thread only; the work is done on a background thread.
 */
import { invariant } from '../../common/assert.js';
import { DiskError } from '../../common/errors.js';
import type { DeltaFiles } from '../delta/delta-files.js';
import type { DeltaId } from '../delta-id.js';
import type { BlockRange, CheckedDeltas, Compacted, StoreHealth, Summed } from '../engine.js';
import type { OpenVolumes } from '../opening/volumes.js';
import type { TidyOrder, TidyOutcome } from './tidy-deltas.js';

/** How long after a sealing, or a start, checksums are begun: both are busy times. */
const REST_MS = 3000;
/** The part of the time that summing in the background may take while no disk is in use. */
const SUM_SHARE = 1 / 4;
/** The same for what somebody waits for. */
const CHECK_SHARE = 1;

/** How long work is broken off, and who hears of it. */
export interface Work {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((doneBytes: number, totalBytes: number) => void) | undefined;
}

export interface HealthParts {
  readonly files: DeltaFiles;
  readonly volumes: () => OpenVolumes;
  readonly run: (order: TidyOrder, work?: Work) => Promise<TidyOutcome>;
  readonly onError: (what: string, error: unknown) => void;
  /** Told when checksums were added. */
  readonly onSummed: () => void;
}

export class Health implements StoreHealth {
  readonly #parts: HealthParts;
  #timer: NodeJS.Timeout | undefined;
  #summing: Promise<unknown> | undefined;
  #started = false;
  readonly #end = new AbortController();

  constructor(parts: HealthParts) {
    this.#parts = parts;
  }

  /** Computes in the background what checksums are missing, now and after every sealing. */
  start(): void {
    this.#started = true;
    this.schedule();
  }

  /** Says that deltas were sealed. */
  schedule(): void {
    if (!this.#started || this.#end.signal.aborted || this.#timer !== undefined) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      void this.#sumInBackground();
    }, REST_MS);
    this.#timer.unref();
  }

  /** Whether checksums are being written now. */
  get isSumming(): boolean {
    return this.#summing !== undefined;
  }

  async #sumInBackground(): Promise<void> {
    if (this.#summing !== undefined) {
      this.schedule();
      return;
    }
    try {
      const { again, problems } = await this.#sum(SUM_SHARE, { signal: this.#end.signal });
      for (const problem of problems) this.#parts.onError('cannot sum a delta', problem);
      if (again) this.schedule();
    } catch (error) {
      const isEnd = error instanceof DiskError && error.code === 'interrupted';
      if (!isEnd) this.#parts.onError('cannot compute checksums', error);
    }
  }

  async #sum(share: number, work: Work): Promise<Summed> {
    const done = this.#run({ kind: 'sum', share }, work);
    this.#summing = done;
    try {
      const { summed } = await done;
      invariant(summed !== undefined, 'a sum job tells what it summed');
      this.#parts.onSummed();
      return summed;
    } finally {
      this.#summing = undefined;
    }
  }

  async sum(work: Work): Promise<Summed> {
    while (this.#summing !== undefined) await this.#summing.catch(() => undefined);
    return await this.#sum(CHECK_SHARE, work);
  }

  async check(
    request: { readonly deltas: readonly DeltaId[]; readonly deep: boolean },
    work: Work,
  ): Promise<CheckedDeltas> {
    const job = { kind: 'check', share: CHECK_SHARE, ...request } as const;
    const { checked } = await this.#run(job, work);
    invariant(checked !== undefined, 'a check tells what it found');
    return checked;
  }

  async compact(deltas: readonly DeltaId[], work: Work): Promise<Compacted> {
    const { compacted } = await this.#run({ kind: 'compact', deltas }, work);
    invariant(compacted !== undefined, 'a compaction tells what it came to');
    return compacted;
  }

  async answered(
    deltas: readonly DeltaId[],
    ranges: readonly BlockRange[],
  ): Promise<Uint8Array[][]> {
    const { answered } = await this.#run({ kind: 'answered', deltas, ranges });
    invariant(answered !== undefined, 'this job tells who answers');
    return answered;
  }

  async repairHeader(id: DeltaId): Promise<boolean> {
    return await this.#parts.volumes().changes.repairHeader(id);
  }

  #run(job: TidyOrder['job'], work: Work = {}): Promise<TidyOutcome> {
    const { folder, epoch } = this.#parts.files;
    return this.#parts.run({ folder, epoch, job }, work);
  }

  /** Ends the work in the background; resolves when it has. */
  async stop(): Promise<void> {
    this.#end.abort();
    clearTimeout(this.#timer);
    await this.#summing?.catch(() => undefined);
  }
}
