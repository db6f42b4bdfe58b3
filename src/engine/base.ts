/** The bottom of a chain as the engine sees it: an immutable disk that is never written. */
import type { MapExtent } from '../common/extent-map.js';
import type { Extent } from './disk-image.js';

export interface BaseImage {
  /** Absolute. */
  readonly path: string;
  readonly format: string;
  /** The part of the file that the image is; default all of it. */
  readonly window?: { readonly offset: number; readonly length: number };
  /** The internal snapshot of it that is shown; default its present state. */
  readonly snapshot?: string;
}

/**
 * How a base is opened, as stored by the VM side in the store and handed to every I/O thread.
 * Chains of foreign images are resolved once, at import: `files` lists them top first.
 */
export interface BaseSpec {
  readonly id: string;
  /** Each image of the foreign chain, top first. */
  readonly images: readonly BaseImage[];
  /**
   * Absolute folders besides each image's own in which its further files (VMDK extents) may lie;
   * default none.
   */
  readonly allowFolders?: readonly string[];
  /** Bytes. */
  readonly virtualSize: number;
  /** Bytes of real data, as found at import: goes into `st_blocks`. */
  readonly allocatedSize: number;
}

/** An opened base: the merged view of a foreign chain. Synchronous; one instance a thread. */
export interface Base {
  readonly virtualSize: number;
  /**
   * Like `DiskImage.extentAt`, with the whole foreign chain walked: `unallocated` = nobody holds
   * it, reads as zero.
   */
  extentAt(offset: number, length: number, out: Extent): void;
  /** Reads any range inside the virtual size; zero and unallocated parts are filled with zeroes. */
  readAt(target: Buffer, targetOffset: number, offset: number, length: number): void;
  /**
   * The piece of a map that begins at `offset`, at most `length` bytes: which image of the chain
   * answers (`depth`), and where its bytes lie. Absent where nothing is known of that.
   */
  mapAt?(offset: number, length: number): MapExtent;
  close(): void;
}

/** Opens a base on the calling thread. Injected where rooms are wired together. */
export type OpenBase = (spec: BaseSpec) => Base;
