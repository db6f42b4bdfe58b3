/** Maps as they come in, page by page: of an image file, read here and now, or from the daemon. */
import { resolve } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { DiskError } from '../common/errors.js';
import { collectPage, ExtentJoiner, type MapExtent, type MapPage } from '../common/extent-map.js';
import type { Target } from '../control/protocol.js';
import type { ImageOpening } from './image-target.js';
import { onInterrupt } from './interrupt.js';
import type { Session } from './session.js';

/** A page of an image's map has so many extents at most, and takes so long, milliseconds. */
const MAX_PAGE_EXTENTS = 1000;
const MAX_PAGE_MS = 50;

export interface ImageMapOptions extends ImageOpening {
  readonly onWarning?: (text: string) => void;
}

export type MapPages = AsyncIterable<readonly MapExtent[]>;

/** Joins what goes on across the ends of pages. */
export async function* joined(pages: MapPages): AsyncGenerator<readonly MapExtent[]> {
  const joiner = new ExtentJoiner();
  for await (const page of pages) {
    yield page.map((piece) => joiner.add(piece)).filter((extent) => extent !== undefined);
  }
  const last = joiner.end();
  if (last !== undefined) yield [last];
}

/**
 * The map of an image and the parents below it.
 * @throws DiskError as `openChain` does; `interrupted`.
 */
export async function* imagePages(
  path: string,
  options: ImageMapOptions,
): AsyncGenerator<readonly MapExtent[]> {
  // Here and not above: all other commands start without the formats.
  const { openChain } = await import('../formats/open-chain.js');
  const { mapImages } = await import('../formats/image-map.js');
  const images = openChain(resolve(path), options);
  const size = images[0]!.virtualSize;
  let interrupted = false;
  const release = onInterrupt(() => {
    interrupted = true;
  });
  try {
    for (let at = 0; at < size; ) {
      const range = { start: at, end: size, limit: MAX_PAGE_EXTENTS, maxMs: MAX_PAGE_MS };
      const page = collectPage(range, (offset) => mapImages(images, offset, size - offset));
      at = page.next ?? size;
      yield page.extents;
      // Signals are heard in between.
      await setImmediate();
      if (interrupted) throw new DiskError('interrupted', `${path}: the map was cancelled`);
    }
  } finally {
    release();
    for (const image of images) image.close();
  }
}

/** The map of a VM's disk, asked for page by page. */
export async function* vmPages(
  session: Session,
  target: Target,
): AsyncGenerator<readonly MapExtent[]> {
  for (let start: number | undefined = 0; start !== undefined; ) {
    const page: MapPage = await session.call('map', { ...target, start });
    yield page.extents;
    start = page.next;
  }
}
