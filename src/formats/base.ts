/**
 * The one place that walks foreign images: shows a chain of them, top first, as one immutable disk.
 */
import { dirname, resolve } from 'node:path';
import { DiskError } from '../common/errors.js';
import type { MapExtent } from '../common/extent-map.js';
import { isAtOrBelow } from '../common/path-below.js';
import { shellWord } from '../common/shell-word.js';
import { alignUp, SECTOR_SIZE } from '../common/units.js';
import type { Base, BaseSpec } from '../engine/base.js';
import { newDeltaId } from '../engine/delta-id.js';
import type { DiskImage, Extent } from '../engine/disk-image.js';
import { realFolder } from '../storage/host-path.js';
import { countData } from './count-data.js';
import { type BaseFingerprint, takeFingerprint } from './fingerprint.js';
import { findAnswer, mapImages } from './image-map.js';
import { inOneBudget } from './memory-budget.js';
import { type ChainOptions, openChain } from './open-chain.js';
import { openImage } from './registry.js';
import { quoteName } from './sibling-path.js';

/** Most snapshots that are named in a line. */
const MOST_NAMES = 10;

/** Resolves when images of every kind can be read. */
export { decoderReady as formatsReady } from './qcow2/zstd.js';

export interface BaseDescription {
  /** What `openBase` takes; its `id` is new. */
  readonly spec: BaseSpec;
  readonly fingerprint: BaseFingerprint;
  /** Findings that are no errors, one line each. */
  readonly warnings: readonly string[];
}

/**
 * Resolves an image and its parents for import.
 * @throws DiskError whatever `openChain` does.
 */
export function describeBase(path: string, options: ChainOptions = {}): BaseDescription {
  const warnings: string[] = [];
  const onWarning = (text: string) => {
    warnings.push(text);
    options.onWarning?.(text);
  };
  const images = openChain(resolve(path), { ...options, onWarning });
  const base = new ImageBase(images);
  try {
    const size = images[0]!.virtualSize;
    if (size !== base.virtualSize) {
      onWarning(
        `${path}: its disk of ${size} bytes is no whole number of sectors: ` +
          `${base.virtualSize - size} zeroes are added`,
      );
    }
    if (options.snapshot === undefined) noteSnapshots(images[0]!, onWarning);
    const { window, snapshot } = options;
    const allowFolders = foldersOf(images, options.allowFolders ?? []);
    const spec: BaseSpec = {
      id: newDeltaId(),
      images: images.map((image, index) => ({
        path: image.path,
        format: image.format,
        ...(window === undefined ? {} : { window }),
        ...(snapshot === undefined || index > 0 ? {} : { snapshot }),
      })),
      virtualSize: base.virtualSize,
      allocatedSize: countData(base),
      ...(allowFolders.length === 0 ? {} : { allowFolders }),
    };
    return { spec, fingerprint: takeFingerprint(images), warnings };
  } finally {
    base.close();
  }
}

/** Who imports an image with snapshots may not have meant its present state. */
function noteSnapshots(image: DiskImage, onWarning: (text: string) => void): void {
  const { path, internalSnapshots = [] } = image;
  if (internalSnapshots.length === 0) return;
  const listed = internalSnapshots.slice(0, MOST_NAMES).map(({ name }) => quoteName(name));
  if (internalSnapshots.length > listed.length) listed.push('...');
  onWarning(
    `${path}: its present state is taken; one of its internal snapshots (${listed.join(', ')}): ` +
      `layerdisk import ${shellWord(path)} VM --image-snapshot NAME`,
  );
}

/**
 * The allowed folders, and those of files that only opening the whole chain allowed: a parent's
 * extents or data file may lie in the folder of the top image.
 */
function foldersOf(images: readonly DiskImage[], allowed: readonly string[]): string[] {
  const folders = new Set(allowed);
  for (const { path, files } of images) {
    const own = realFolder(path);
    for (const file of files.slice(1)) {
      if (![own, ...folders].some((folder) => isAtOrBelow(file, folder)))
        folders.add(dirname(file));
    }
  }
  return [...folders];
}

/**
 * Opens a base as it was described. Parents are not looked for again.
 * @throws DiskError what opening an image throws; `damaged` when the disk has another size than it
 * had.
 */
export function openBase(spec: BaseSpec): Base {
  const images: DiskImage[] = [];
  try {
    const { allowFolders = [] } = spec;
    inOneBudget(() => {
      for (const { path, format, ...part } of spec.images) {
        images.push(openImage(path, format, { allowFolders, ...part }));
      }
    });
    const base = new ImageBase(images);
    if (base.virtualSize !== spec.virtualSize) {
      throw new DiskError(
        'damaged',
        `${images[0]?.path}: its disk had ${spec.virtualSize} bytes when it was imported, ` +
          `now it has ${base.virtualSize}`,
        { errno: 'EIO' },
      );
    }
    return base;
  } catch (error) {
    for (const image of images) image.close();
    throw error;
  }
}

/**
 * The merged view of images, top first; closes them with itself.
 *
 * A disk that ends inside a sector, as VirtualBox makes them from raw files of any length, is shown
 * up to that sector's end.
 *
 * INVARIANT: an image is asked only within its virtual size, and read only where it said `data`.
 */
export class ImageBase implements Base {
  readonly virtualSize: number;
  readonly #images: readonly DiskImage[];
  readonly #extent: Extent = { state: 'data', length: 0 };
  /** Bytes that all images reach. */
  readonly #commonSize: number;
  /** Which image answered the last `#find`. */
  #answering = 0;

  constructor(images: readonly DiskImage[]) {
    this.#images = images;
    this.virtualSize = alignUp(images[0]?.virtualSize ?? 0, SECTOR_SIZE);
    this.#commonSize = Math.min(...images.map((image) => image.virtualSize));
  }

  extentAt(offset: number, length: number, out: Extent): void {
    this.#find(offset, length, out);
    // A shorter parent hides whatever may lie further down: these zeroes are the chain's own.
    if (out.state === 'unallocated' && offset >= this.#commonSize) out.state = 'zero';
  }

  readAt(target: Buffer, targetOffset: number, offset: number, length: number): void {
    const top = this.#images[0]!;
    if (top.complete === true && offset + length <= top.virtualSize) {
      top.readAt(target, targetOffset, offset, length);
      return;
    }
    const extent = this.#extent;
    for (let done = 0; done < length; done += extent.length) {
      this.#find(offset + done, length - done, extent);
      const start = targetOffset + done;
      if (extent.state === 'data') {
        this.#images[this.#answering]!.readAt(target, start, offset + done, extent.length);
      } else {
        target.fill(0, start, start + extent.length);
      }
    }
  }

  mapAt(offset: number, length: number): MapExtent {
    return mapImages(this.#images, offset, length);
  }

  close(): void {
    for (const image of this.#images) image.close();
  }

  /** The run at `offset`; notes who answers for it. */
  #find(offset: number, length: number, out: Extent): void {
    this.#answering = findAnswer(this.#images, offset, length, out);
  }
}
