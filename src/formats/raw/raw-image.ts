/** A raw image: the file is the disk, and holes of the file are zeroes. */
import { DiskError } from '../../common/errors.js';
import { SECTOR_SIZE } from '../../common/units.js';
import type { DiskImage, Extent, ExtentLocation, ImageInfo } from '../../engine/disk-image.js';
import { HostFile, type ReadableFile } from '../../storage/host-file.js';
import { FileRuns } from '../../storage/sparse-file.js';
import { infoOf } from '../count-data.js';
import type { ImageOptions } from '../image-options.js';

/**
 * Opens any regular file as a raw disk.
 * @throws DiskError `not-supported` when its size is no whole number of sectors, and what
 * `HostFile.open` throws.
 */
export function openRaw(path: string, { window }: ImageOptions = {}): DiskImage {
  const file = HostFile.open(path, window);
  try {
    return new RawImage(file);
  } catch (error) {
    file.close();
    throw error;
  }
}

class RawImage implements DiskImage {
  readonly format = 'raw';
  readonly path: string;
  readonly files: readonly string[];
  readonly virtualSize: number;
  readonly parent = undefined;
  readonly complete = true;
  readonly #file: ReadableFile;
  readonly #runs: FileRuns;

  constructor(file: ReadableFile) {
    if (file.size === 0) {
      throw new DiskError('not-supported', `${file.path} is empty: it holds no disk`, {
        hint: 'give the path of an image file that holds at least one sector of 512 bytes',
      });
    }
    if (file.size % SECTOR_SIZE !== 0) {
      throw new DiskError(
        'not-supported',
        `${file.path}: ${file.size} bytes are not a whole number of ${SECTOR_SIZE}-byte sectors, ` +
          'so it is not a raw disk',
        { hint: `if it is one that was cut off, pad a copy of it: truncate -s %512 COPY` },
      );
    }
    this.path = file.path;
    this.files = [file.path];
    this.virtualSize = file.size;
    this.#file = file;
    this.#runs = new FileRuns(file.fd, file.size);
  }

  info(): ImageInfo {
    return infoOf(this, {
      format: 'raw',
      subformat: 'raw',
      virtualSize: this.virtualSize,
      unitSize: 0,
      logicalSectorSize: SECTOR_SIZE,
      identity: {},
      notes: [],
    });
  }

  extentAt(offset: number, length: number, out: Extent): void {
    out.state = this.#runs.isData(offset) ? 'data' : 'zero';
    out.length = Math.min(length, this.#runs.endOf(offset) - offset);
  }

  readAt(target: Buffer, targetOffset: number, offset: number, length: number): void {
    this.#file.readExact(target, targetOffset, length, offset);
  }

  locate(offset: number): ExtentLocation {
    return { file: this.path, offset, length: this.virtualSize - offset };
  }

  close(): void {
    this.#file.close();
  }
}
