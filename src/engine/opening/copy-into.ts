/** A full copy as the main thread sees it: both chains open while a background thread copies. */
import type { DeltaId } from '../delta-id.js';
import type { CopyProgress, OpenVolume } from '../engine.js';
import type { VolumesOptions } from './volumes-options.js';

export interface CopyOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: CopyProgress) => void;
}

/** What it needs of the open volumes. */
interface Opener {
  acquire(top: DeltaId, options: { readonly writable: boolean }): Promise<OpenVolume>;
  release(volume: OpenVolume): void;
  flushHandle(handle: number): Promise<void>;
  closeIdle(volume: OpenVolume): void;
}

/** Durable when it resolves. @throws what opening and copying throw. */
export async function copyInto(
  volumes: Opener,
  runCopy: VolumesOptions['runCopy'],
  { source, target }: { readonly source: DeltaId; readonly target: DeltaId },
  options: CopyOptions,
): Promise<void> {
  const from = await volumes.acquire(source, { writable: false });
  try {
    const to = await volumes.acquire(target, { writable: true });
    try {
      const totalBytes = from.allocatedSize;
      await runCopy({
        source: from.handle,
        target: to.handle,
        signal: options.signal,
        onProgress: (doneBytes) => options.onProgress?.({ doneBytes, totalBytes }),
      });
      await volumes.flushHandle(to.handle);
    } finally {
      volumes.release(to);
      // At once, so that a copy that failed can be removed.
      volumes.closeIdle(to);
    }
  } finally {
    volumes.release(from);
  }
}
