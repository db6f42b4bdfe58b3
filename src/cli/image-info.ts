/**
 * What an image file says of itself, read here and now: no daemon is needed, and nothing is
 * written.
 */
import { statSync } from 'node:fs';
import { resolve } from 'node:path';
import { DiskError } from '../common/errors.js';
import type { DiskImage, ImageInfo, InternalSnapshot } from '../engine/disk-image.js';
import type { ImageOpening } from './image-target.js';

/** `info FILE`: sizes in bytes. */
export interface ImageView extends ImageInfo {
  readonly path: string;
  /** Every file that holds part of this image, the main file first. */
  readonly files: readonly string[];
  /** Lengths of these files, and what they take on the host. */
  readonly fileSize: number;
  readonly storedSize: number;
  /** The snapshots that it holds of itself, if any. */
  readonly internalSnapshots?: readonly SnapshotView[];
  /** The image below this one, as this one names it. */
  readonly parent?: { readonly names: readonly string[]; readonly format?: string };
  /** Given with a parent: what the disk consists of, this image first; absent if not all opens. */
  readonly chain?: readonly ChainLink[];
  /**
   * `sound`: all is there, nothing was noted. `noted`: all is there, see the notes.
   * `incomplete`: something below it is missing or not the right one, see `problem`.
   */
  readonly health: 'sound' | 'noted' | 'incomplete';
  readonly problem?: { readonly message: string; readonly hint?: string };
}

export interface SnapshotView extends Omit<InternalSnapshot, 'takenAt'> {
  /** As ISO 8601 has it. */
  readonly created: string;
}

export interface ChainLink {
  readonly path: string;
  readonly format: string;
  readonly virtualSize: number;
}

/**
 * Reads one image, and looks whether all that it stands on is there.
 * @throws DiskError naming the file: `not-found`, `not-permitted`, `not-supported`, `damaged`,
 * `usage` (another format, a parent that nothing needs).
 */
export async function imageInfo(path: string, options: ImageOpening): Promise<ImageView> {
  const { images, notes: noted, problem } = await openAll(resolve(path), options);
  try {
    const image = images[0]!;
    const { files, parent, internalSnapshots = [] } = image;
    const info = image.info();
    const notes = [...info.notes, ...noted];
    const sizes = files.map((file) => statSync(file));
    return {
      path: image.path,
      ...info,
      files: [...files],
      fileSize: sizes.reduce((sum, { size }) => sum + size, 0),
      storedSize: sizes.reduce((sum, { blocks }) => sum + blocks * STAT_BLOCK, 0),
      ...(internalSnapshots.length === 0
        ? {}
        : { internalSnapshots: internalSnapshots.map(asView) }),
      ...(parent === undefined ? {} : { parent: asNamed(parent) }),
      ...(images.length === 1 ? {} : { chain: images.map(asLink) }),
      ...(problem === undefined ? {} : { problem }),
      notes,
      health: problem ? 'incomplete' : notes.length > 0 ? 'noted' : 'sound',
    };
  } finally {
    for (const each of images) each.close();
  }
}

function asView({ id, name, takenAt, virtualSize, hasMachineState }: InternalSnapshot) {
  const created = new Date(takenAt * 1000).toISOString();
  return { id, name, created, virtualSize, hasMachineState };
}

/** The unit of `st_blocks`, bytes (inode(7)). */
const STAT_BLOCK = 512;

function asNamed({ names, format }: NonNullable<DiskImage['parent']>) {
  return { names, ...(format === undefined ? {} : { format }) };
}

function asLink({ path, format, virtualSize }: DiskImage): ChainLink {
  return { path, format, virtualSize };
}

interface Opened {
  /** The image, and all below it where that opens. */
  readonly images: readonly DiskImage[];
  readonly notes: readonly string[];
  readonly problem?: { readonly message: string; readonly hint?: string };
}

/** Follows the parents, as an import does; where that fails, opens the image alone. */
async function openAll(path: string, options: ImageOpening): Promise<Opened> {
  // Here and not above: all other commands start without the formats.
  const { openChain } = await import('../formats/open-chain.js');
  const { openStated } = await import('../formats/registry.js');
  const notes: string[] = [];
  try {
    const images = openChain(path, { ...options, onWarning: (text) => notes.push(text) });
    return { images, notes };
  } catch (error) {
    if (!(error instanceof DiskError) || error.code === 'usage') throw error;
    const { format, allowFolders = [] } = options;
    // It throws, too, where the fault is the image's own.
    const images = [openStated(path, format, { allowFolders })];
    const { message, hint } = error;
    return { images, notes, problem: { message, ...(hint === undefined ? {} : { hint }) } };
  }
}
