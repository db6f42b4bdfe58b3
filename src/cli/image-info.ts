/**
 * What an image file says of itself, read here and now: no daemon is needed, and nothing is
 * written.
 */
import { resolve } from 'node:path';
import type { ImageInfo } from '../engine/disk-image.js';

/** `info FILE`: sizes in bytes. */
export interface ImageView extends ImageInfo {
  readonly path: string;
  /** Every file that holds part of this image, the main file first. */
  readonly files: readonly string[];
  /** The image below this one, as this one names it. */
  readonly parent?: { readonly names: readonly string[]; readonly format?: string };
}

/**
 * Reads one image; its parents are named but not opened.
 * @throws DiskError naming the file: `not-found`, `not-permitted`, `not-supported`, `damaged`,
 * `usage` (another format).
 */
export async function imageInfo(path: string, format = 'auto'): Promise<ImageView> {
  // Here and not above: all other commands start without the formats.
  const { openStated } = await import('../formats/registry.js');
  const image = openStated(resolve(path), format);
  try {
    const { files, parent } = image;
    const named = parent && {
      names: parent.names,
      ...(parent.format === undefined ? {} : { format: parent.format }),
    };
    const view = { path: image.path, ...image.info(), files: [...files] };
    return named === undefined ? view : { ...view, parent: named };
  } finally {
    image.close();
  }
}
