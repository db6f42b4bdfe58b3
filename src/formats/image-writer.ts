/**
 * The contract of a format that can write images, and what it is told. Only `write-image.ts` drives
 * writers: it walks the source, reads it, and hands over what is there in ascending order.
 */
import type { DiskImage } from '../engine/disk-image.js';
import type { OutputFiles } from '../storage/output-files.js';

/** No call crosses a multiple of this many bytes of the virtual disk. */
export const WRITE_CHUNK = 1024 * 1024;

/** The image below a differencing image. */
export interface ParentLink {
  /** The parent as opened: its `path`, `format`, `virtualSize` and `info().identity` go in. */
  readonly image: DiskImage;
  /** What the child calls it: relative to the child's own folder where that is possible. */
  readonly name: string;
}

export interface WriteOptions {
  /** Bytes, a multiple of 512. */
  readonly virtualSize: number;
  /** One of the format's `subformats`, with a parent one of its `differencing`. */
  readonly subformat: string;
  /** Given for a differencing image, which says nothing about what the parent answers for. */
  readonly parent?: ParentLink;
}

/**
 * One image under construction. Calls are ascending, do not overlap, and start and end at multiples
 * of `granularity`, or at the end of the disk. What no call names stays as it is in a new image:
 * unallocated, which reads as zeroes where there is no parent.
 *
 * A writer makes files by `OutputFiles.create` alone, so that they get their names, or vanish, all
 * at once. It keeps memory bounded by its tables, and those by the virtual size.
 */
export interface ImageWriter {
  /** Bytes: a power of two from 512 to `WRITE_CHUNK`. */
  readonly granularity: number;
  /**
   * These bytes of the disk. The buffer belongs to the caller again when the call has returned, or
   * when its promise is kept (writers that compress on several threads).
   * @throws DiskError ENOSPC and others from the host.
   */
  write(
    offset: number,
    source: Buffer,
    sourceOffset: number,
    length: number,
  ): Promise<void> | undefined;
  /** This range reads as zeroes though a parent may hold data: called with a parent only. */
  zero(offset: number, length: number): void;
  /** Writes what is still missing: tables, headers, footers. The driver syncs and publishes. */
  finish(): void;
}

/** What the registry knows of a format that can be written. */
export interface ImageWriting {
  /** Names that users give to what has no parent, the default first. */
  readonly subformats: readonly string[];
  /**
   * Names of what has a parent, the default first; some formats use the same ones. Empty: there are
   * no differencing images.
   */
  readonly differencing: readonly string[];
  /**
   * Begins an image whose main file is `outputs.path`.
   * @throws DiskError `not-supported` for a disk or a parent that the format cannot hold, naming
   * the limit.
   */
  create(outputs: OutputFiles, options: WriteOptions): ImageWriter;
}
