/** Writes raw images: the file is the disk; what is zero stays a hole, or space taken at once. */
import { BLOCK_SIZE } from '../../common/units.js';
import type { OutputFile } from '../../storage/output-files.js';
import type { ImageWriter, ImageWriting } from '../image-writer.js';

const SPARSE = 'sparse';
const STATIC = 'static';

export const rawWriting: ImageWriting = {
  subformats: [SPARSE, STATIC],
  differencing: [],
  create(outputs, { virtualSize, subformat }) {
    const file = outputs.create(outputs.path);
    if (subformat === STATIC) file.allocate(virtualSize);
    else file.truncate(virtualSize);
    return new RawWriter(file);
  },
};

class RawWriter implements ImageWriter {
  /** Hosts know no smaller holes. */
  readonly granularity = BLOCK_SIZE;
  readonly #file: OutputFile;

  constructor(file: OutputFile) {
    this.#file = file;
  }

  write(offset: number, source: Buffer, sourceOffset: number, length: number): undefined {
    this.#file.write(source, sourceOffset, length, offset);
  }

  zero(): void {
    // Raw images have no parent, and the file began as zeroes.
  }

  finish(): void {
    // Everything is in place.
  }
}
