/** A fixed VHD: the disk as it is, and a footer behind it. */
import { SECTOR_SIZE } from '../../common/units.js';
import type { DiskImage, Extent, ExtentLocation, ImageInfo } from '../../engine/disk-image.js';
import type { ReadableFile } from '../../storage/host-file.js';
import { FileRuns } from '../../storage/sparse-file.js';
import { infoOf } from '../count-data.js';
import { damaged } from '../image-error.js';
import type { VhdFooter } from './vhd-footer.js';

export class FixedVhd implements DiskImage {
  readonly format = 'vhd';
  readonly path: string;
  readonly files: readonly string[];
  readonly virtualSize: number;
  readonly complete = true;
  readonly parent = undefined;
  readonly #file: ReadableFile;
  readonly #footer: VhdFooter;
  readonly #runs: FileRuns;

  /** @throws DiskError `damaged` when the footer says more than lies in front of it. */
  constructor(file: ReadableFile, footer: VhdFooter) {
    if (footer.virtualSize > footer.end) {
      throw damaged(
        file.path,
        `a fixed disk of ${footer.virtualSize} bytes, ` +
          `but only ${footer.end} lie in front of its footer`,
      );
    }
    this.path = file.path;
    this.files = [file.path];
    this.virtualSize = footer.virtualSize;
    this.#file = file;
    this.#footer = footer;
    this.#runs = new FileRuns(file.fd, file.size);
  }

  info(): ImageInfo {
    const { uuid, timeStamp, creator, notes, end } = this.#footer;
    const rest = end - this.virtualSize;
    return infoOf(this, {
      format: 'vhd',
      subformat: 'fixed',
      virtualSize: this.virtualSize,
      unitSize: 0,
      logicalSectorSize: SECTOR_SIZE,
      identity: { uuid, 'time-stamp': timeStamp },
      creator,
      notes: rest === 0 ? notes : [...notes, `${rest} bytes between the disk and its footer`],
    });
  }

  /** Holes of the file read as zeroes. */
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
