/** The contract a transport sees: one virtual disk as a flat array of bytes. */

/**
 * An opened disk (a head or a snapshot), as one thread sees it. All calls are synchronous, safe to
 * make from any number of threads at once on the same disk, and safe to repeat (a resent request
 * runs twice).
 *
 * Offsets and lengths are bytes; the caller has clamped them: 0 <= offset, offset + length <= size.
 * Errors are `DiskError`s whose `errno` is what the caller of the file should see (ENOSPC, EIO,
 * EROFS).
 */
export interface BlockDevice {
  readonly size: number;
  readonly readOnly: boolean;
  /** Bytes that really take space: what `st_blocks` shows. */
  readonly allocatedSize: number;
  /** Fills `target[targetOffset .. +length)` with the disk's bytes at `offset`. */
  read(target: Buffer, targetOffset: number, offset: number, length: number): void;
  /**
   * When it returns, the write survives the death of this process (not yet a power cut: see
   * `flush`).
   */
  write(source: Buffer, sourceOffset: number, offset: number, length: number): void;
  /**
   * The range reads as zeroes afterwards and gives its space back (statically allocated disks keep
   * it).
   */
  discard(offset: number, length: number): void;
  /** When it returns, every write that was acknowledged before it survives a power cut. */
  flush(): void;
  /**
   * The same for the main thread, which must not wait: it may itself have to finish what a flush
   * waits for.
   */
  flushAsync?(): Promise<void>;
  /** Offset of the first byte at or after `offset` that may hold data; -1 when there is none. */
  nextData(offset: number): number;
  /** Offset of the first byte at or after `offset` that lies in a hole; `size` counts as one. */
  nextHole(offset: number): number;
}
