/** What open volumes need of whoever puts the engine together. */
import type { BaseSpec } from '../base.js';
import type { BaseNotice } from '../volume/base-table.js';
import type { ChainTools } from './chain-loader.js';

export interface CopyJob {
  readonly source: number;
  readonly target: number;
  readonly signal: AbortSignal | undefined;
  readonly onProgress: (doneBytes: number) => void;
}

/** How long a chain stays open after its last user left, milliseconds. */
export const REST_MS = 5000;
/** For a disk that is to be closed at once: what flushes it in the background is waited for. */
export const CLOSING = { tries: 200, everyMs: 10 } as const;
/** How long written data may wait for a power cut, milliseconds: as long as ext4's. */
export const FLUSH_MS = 5000;

export interface VolumesOptions {
  readonly tools: ChainTools;
  /** The base that a bottom delta names. @throws DiskError when it is gone or has changed. */
  readonly resolveBase: (id: string) => Promise<BaseSpec>;
  /** Tells every thread about a base before a volume on it is published. */
  readonly publishBase: (notice: BaseNotice) => void;
  /** Runs a copy on a background thread. */
  readonly runCopy: (job: CopyJob) => Promise<void>;
  /** A row was given to a volume. */
  readonly onOpen: (row: number) => void;
  /** Heads became sealed deltas. */
  readonly onSealed: () => void;
  /** Volumes read deltas that nobody read before. */
  readonly onMerged: () => void;
  /** An error that no caller waits for. */
  readonly onError: (what: string, error: unknown) => void;
}
