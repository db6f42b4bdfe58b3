/** Images that tests have our writers make. */
import type { FormatName } from '../../src/formats/image-format.js';
import type { ImageWriting, ParentLink } from '../../src/formats/image-writer.js';
import { writingOf } from '../../src/formats/registry.js';
import { type ImageSource, type WriteHooks, writeImage } from '../../src/formats/write-image.js';
import { OutputFiles } from '../../src/storage/output-files.js';

export interface WrittenFormat {
  readonly format: FormatName;
  readonly subformat: string;
}

/** An image that was written. */
export interface Written {
  readonly path: string;
  readonly granularity: number;
}

/** Writes `source` as one image, and notes what the writer asked for. */
export async function writeTestImage(
  what: WrittenFormat,
  path: string,
  source: ImageSource,
  options: { parent?: ParentLink; hooks?: WriteHooks; overwrite?: boolean } = {},
): Promise<Written> {
  const { format, subformat } = what;
  const { parent, hooks, overwrite = false } = options;
  const writing = writingOf(format)!;
  let granularity = 0;
  const watched: ImageWriting = {
    ...writing,
    create(outputs, told) {
      const writer = writing.create(outputs, told);
      granularity = writer.granularity;
      return writer;
    },
  };
  await writeImage(
    source,
    new OutputFiles(path, { overwrite }),
    watched,
    { virtualSize: source.virtualSize, subformat, ...(parent === undefined ? {} : { parent }) },
    hooks,
  );
  return { path, granularity };
}
