/** What the parts of one check of delta files share: findings, progress, pace. */
import { errnoName } from '../../common/errors.js';
import type { DeltaFiles } from '../delta/delta-files.js';
import type { DeltaId } from '../delta-id.js';
import type { DeltaFinding, JobWork } from '../engine.js';
import type { Pace } from './pace.js';

/** Findings that one job answers; more are only counted. */
const MOST_FINDINGS = 1000;

export class CheckRun {
  readonly files: DeltaFiles;
  readonly pace: Pace;
  readonly findings: DeltaFinding[] = [];
  readonly notSummed: DeltaId[] = [];
  more = 0;
  bytesRead = 0;
  readonly #totalBytes: number;
  readonly #work: JobWork;

  constructor(files: DeltaFiles, pace: Pace, work: JobWork, totalBytes: number) {
    this.files = files;
    this.pace = pace;
    this.#work = work;
    this.#totalBytes = totalBytes;
  }

  found(finding: DeltaFinding): void {
    if (this.findings.length < MOST_FINDINGS) this.findings.push(finding);
    else this.more += 1;
  }

  /** Between pieces of work. @throws DiskError `interrupted`. */
  async read(bytes: number): Promise<void> {
    this.bytesRead += bytes;
    this.#work.onProgress?.(this.bytesRead, Math.max(this.bytesRead, this.#totalBytes));
    await this.pace.rest();
  }
}

/** Of a file of a delta. */
export function whyNotOpened(error: unknown): string {
  if (errnoName(error) === 'ENOENT') return 'is missing';
  return `cannot be opened: ${textOf(error)}`;
}

export function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
