/** Opens VHD images: fixed, dynamic and differencing. */
import type { DiskImage } from '../../engine/disk-image.js';
import { HostFile, type ReadableFile } from '../../storage/host-file.js';
import type { ImageOptions } from '../image-options.js';
import { DynamicVhd } from './dynamic-vhd.js';
import { FixedVhd } from './fixed-vhd.js';
import { hasVhdCookie, readVhdFooter } from './vhd-footer.js';
import { DISK_TYPE_FIXED } from './vhd-layout.js';

/**
 * Whether a file with this beginning and end says that it is a VHD: a fixed one only does at its
 * end.
 */
export function probeVhd(header: Buffer, footer: Buffer): boolean {
  return hasVhdCookie(header, footer);
}

/**
 * Opens a VHD read-only.
 * @throws DiskError `damaged`, `not-supported`, and what `HostFile.open` throws.
 */
export function openVhd(path: string, { window }: ImageOptions = {}): DiskImage {
  const file = HostFile.open(path, window);
  try {
    return readVhd(file);
  } catch (error) {
    file.close();
    throw error;
  }
}

/** The image in a file that is open; closing it closes the file. */
export function readVhd(file: ReadableFile): DiskImage {
  const footer = readVhdFooter(file);
  return footer.diskType === DISK_TYPE_FIXED
    ? new FixedVhd(file, footer)
    : new DynamicVhd(file, footer);
}
