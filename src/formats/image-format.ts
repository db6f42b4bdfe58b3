/** What the registry knows of a format: how to tell it, how to open it. */
import type { DiskImage } from '../engine/disk-image.js';
import type { ImageOptions } from './image-options.js';
import type { ImageWriting } from './image-writer.js';

/** The formats that layerdisk reads, by the names that users and image headers give them. */
export const FORMAT_NAMES = ['raw', 'vdi', 'vmdk', 'vhd', 'vhdx', 'qcow2'] as const;
export type FormatName = (typeof FORMAT_NAMES)[number];

export interface ImageFormat {
  readonly name: FormatName;
  /**
   * Whether a file says by its magic that it is of this format; also true of one that is damaged
   * further on.
   * @param header the file's first `PROBE_HEADER_SIZE` bytes, all of a shorter file.
   * @param footer its last `PROBE_FOOTER_SIZE` bytes, all of a shorter file.
   */
  probe(header: Buffer, footer: Buffer): boolean;
  /** Opens an image read-only. @throws DiskError */
  open(path: string, options?: ImageOptions): DiskImage;
  /** Whether an image may hold snapshots of itself: only then may one be asked for. */
  readonly hasSnapshots?: true;
  /** Absent where the format is only read. */
  readonly writing?: ImageWriting;
}

export const PROBE_HEADER_SIZE = 64 * 1024;
export const PROBE_FOOTER_SIZE = 1024;

export function isFormatName(name: string): name is FormatName {
  return (FORMAT_NAMES as readonly string[]).includes(name);
}
