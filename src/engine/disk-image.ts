/**
 * The contract of a disk image format: it answers for its own bytes only and never opens its
 * parent.
 */

/**
 * What an image says about a range of its virtual disk:
 * - `data`: bytes in this image's files;
 * - `zero`: reads as zeroes, whatever a parent holds;
 * - `unallocated`: this image does not know; its parent answers, or zeroes where there is none.
 */
export type ExtentState = 'data' | 'zero' | 'unallocated';

/**
 * A run of bytes with one state, starting at the offset that was asked for. Reused by callers: no
 * allocation.
 */
export interface Extent {
  state: ExtentState;
  /** Bytes, at least 1. */
  length: number;
}

/** How an image names the image below it. Only `formats/open-chain.ts` follows it. */
export interface ParentReference {
  /** Names to try, in order, as written in the image, already turned into POSIX separators. */
  readonly names: readonly string[];
  /** The parent's format when the child states it (qcow2), else undefined: probe. */
  readonly format?: string;
  /**
   * Whether the opened parent is the one this child was made from: undefined when it is, else one
   * line that says what was expected and what was found.
   */
  mismatch(parent: DiskImage): string | undefined;
  /**
   * True where `mismatch` goes by an id: then the parent may be looked for by its bare names in all
   * folders where it may lie.
   */
  readonly isIdentified?: true;
  /** A difference worth a warning only (VHD time stamps). */
  warning?(parent: DiskImage): string | undefined;
  /**
   * Given where the image knows its parent by an id alone (VirtualBox's): how to recognise it among
   * the files of a folder.
   */
  readonly search?: ParentSearch;
  /**
   * True where the id is one that the machine's registry gives to disks: a raw one, which has none
   * of its own, is the parent when the registry says so.
   */
  readonly isInRegistry?: true;
}

export interface ParentSearch {
  /** Only files whose name ends so are looked at, with the dot, any case. */
  readonly extension: string;
  /**
   * Whether the file that begins with these bytes (its first 16 KiB, or all of a shorter file) is
   * the parent.
   */
  matches(header: Buffer): boolean;
}

/** A state of the disk that its image keeps beside the present one. */
export interface InternalSnapshot {
  /** A short text, unique in the image. */
  readonly id: string;
  readonly name: string;
  /** Seconds since the epoch. */
  readonly takenAt: number;
  /** Bytes of the disk as it was then. */
  readonly virtualSize: number;
  /** Whether the state of a running machine was saved with it (it is not read). */
  readonly hasMachineState: boolean;
}

/** What `info FILE` prints; all sizes in bytes. */
export interface ImageInfo {
  readonly format: string;
  readonly subformat: string;
  readonly virtualSize: number;
  /** Bytes of virtual disk this image holds data for. */
  readonly allocatedSize: number;
  /** Allocation unit of the format in bytes (VDI block, grain, cluster); 0 where there is none. */
  readonly unitSize: number;
  readonly logicalSectorSize: number;
  /** UUIDs, CIDs: whatever the format identifies itself by, by name. */
  readonly identity: Readonly<Record<string, string>>;
  readonly creator?: string;
  /**
   * Non-fatal findings, one line each (replayed log, bad backup header, unknown optional feature).
   */
  readonly notes: readonly string[];
}

/** Where data lie on the host, for maps. */
export interface ExtentLocation {
  readonly file: string;
  /** Absent where the bytes are not there as they are: compressed, changed by a log. */
  readonly offset?: number;
  /** Bytes for which this holds; may reach past the end of the extent. */
  readonly length: number;
  readonly compressed?: boolean;
}

/**
 * One opened image, read-only. All calls are synchronous: they run on I/O threads that do nothing
 * else. Errors are `DiskError`s: `damaged` (with errno EIO) for bytes that the image should have
 * and has not.
 *
 * INVARIANT: nothing here writes to, truncates, locks or touches the times of an image's files.
 * INVARIANT: memory is bounded by the image's real file sizes, never by a number found in a header.
 */
export interface DiskImage {
  readonly format: string;
  /** The main file's path as opened. */
  readonly path: string;
  /** Every file that holds part of this image (extents, external data), main file first. */
  readonly files: readonly string[];
  /** Bytes, any value from 0 (callers check limits); not necessarily a multiple of 4096. */
  readonly virtualSize: number;
  /** True where no byte is ever `unallocated`, so that `readAt` may be asked for any range. */
  readonly complete?: boolean;
  readonly parent: ParentReference | undefined;
  /** The snapshots that it holds of itself, oldest first; default none. */
  readonly internalSnapshots?: readonly InternalSnapshot[];
  info(): ImageInfo;
  /**
   * Describes the run that starts at `offset`, at most `length` bytes of it, into `out`.
   * Requires 0 <= offset, length >= 1, offset + length <= virtualSize.
   */
  extentAt(offset: number, length: number, out: Extent): void;
  /**
   * Reads `length` bytes at `offset` into `target` from `targetOffset` on. The range must lie in
   * one or more `data` or `zero` extents (zero ranges are filled with zeroes).
   */
  readAt(target: Buffer, targetOffset: number, offset: number, length: number): void;
  /** Where the byte at `offset`, which is `data`, lies; undefined where that is nowhere. */
  locate?(offset: number): ExtentLocation | undefined;
  close(): void;
}
