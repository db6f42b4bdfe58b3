/** Images that tests have our writers make. */
import { join } from 'node:path';
import type { FormatName } from '../../src/formats/image-format.js';
import type { ImageWriting, ParentLink } from '../../src/formats/image-writer.js';
import { openImage, writingOf } from '../../src/formats/registry.js';
import { type ImageSource, type WriteHooks, writeImage } from '../../src/formats/write-image.js';
import { OutputFiles } from '../../src/storage/output-files.js';
import { type DiskModel, mergedContent } from './disk-model.js';
import { modelSource } from './image-sources.js';

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

export interface WrittenLevel {
  readonly written: Written;
  /** What the disk shows from this level on down. */
  readonly content: Buffer;
}

/** Writes `level-0` from the first model, `level-1` as its child from the second, and so on. */
export async function writeTestChain(
  what: WrittenFormat & { readonly baseSubformat: string },
  folder: string,
  models: readonly DiskModel[],
): Promise<WrittenLevel[]> {
  const { format, subformat, baseSubformat } = what;
  const levels: WrittenLevel[] = [];
  const chain: DiskModel[] = [];
  for (const [level, model] of models.entries()) {
    chain.unshift(model);
    const path = join(folder, `level-${level}.${format}`);
    const below = levels.at(-1)?.written.path;
    const image = below === undefined ? undefined : openImage(below, format);
    const parent = image && { image, name: `level-${level - 1}.${format}` };
    const kind = { format, subformat: parent ? subformat : baseSubformat };
    const written = await writeTestImage(kind, path, modelSource(chain), parent ? { parent } : {});
    image?.close();
    levels.push({ written, content: mergedContent(chain) });
  }
  return levels;
}
