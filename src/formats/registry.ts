/**
 * Which formats there are: names, probing by magic, opening. The only file that imports the format
 * folders.
 */
import { DiskError } from '../common/errors.js';
import { formatSize, KiB, MAX_DISK_SIZE } from '../common/units.js';
import type { DiskImage } from '../engine/disk-image.js';
import { type FileWindow, HostFile, type ReadableFile } from '../storage/host-file.js';
import { refuseForeign } from './foreign-magic.js';
import {
  FORMAT_NAMES,
  type FormatName,
  type ImageFormat,
  isFormatName,
  PROBE_FOOTER_SIZE,
  PROBE_HEADER_SIZE,
} from './image-format.js';
import type { ImageOptions } from './image-options.js';
import type { ImageWriting } from './image-writer.js';
import { currentBudget } from './memory-budget.js';
import { openQcow2, probeQcow2 } from './qcow2/qcow2-image.js';
import { qcow2Writing } from './qcow2/qcow2-writer.js';
import { openRaw } from './raw/raw-image.js';
import { rawWriting } from './raw/raw-writer.js';
import { openVdi, probeVdi } from './vdi/vdi-image.js';
import { vdiWriting } from './vdi/vdi-writer.js';
import { endsAsFixedVhd } from './vhd/vhd-footer.js';
import { openVhd, probeVhd } from './vhd/vhd-image.js';
import { vhdWriting } from './vhd/vhd-writer.js';
import { openVhdx, probeVhdx } from './vhdx/vhdx-image.js';
import { vhdxWriting } from './vhdx/vhdx-writer.js';
import { openVmdk, probeVmdk } from './vmdk/vmdk-image.js';
import { vmdkWriting } from './vmdk/vmdk-writer.js';

export { FORMAT_NAMES, type FormatName, isFormatName } from './image-format.js';
export type { ImageOptions } from './image-options.js';

/** What an open image costs besides its tables: objects, and a few names. */
const IMAGE_BYTES = 4 * KiB;

const FORMATS: readonly ImageFormat[] = [
  {
    name: 'qcow2',
    probe: probeQcow2,
    open: openQcow2,
    hasSnapshots: true,
    writing: qcow2Writing,
  },
  { name: 'vhdx', probe: probeVhdx, open: openVhdx, writing: vhdxWriting },
  { name: 'vdi', probe: probeVdi, open: openVdi, writing: vdiWriting },
  { name: 'vmdk', probe: probeVmdk, open: openVmdk, writing: vmdkWriting },
  // Last of those probed: a VHD may be told by its footer alone.
  { name: 'vhd', probe: probeVhd, open: openVhd, writing: vhdWriting },
  { name: 'raw', probe: () => false, open: openRaw, writing: rawWriting },
];

/**
 * Opens an image; under `auto` the magic decides, and a file with none that is known is raw.
 * @throws DiskError naming the file: `not-found` (an internal snapshot, too), `not-permitted`,
 *   `not-supported`, `damaged`, `usage` (a snapshot of a format that has none).
 */
export function openImage(
  path: string,
  format: string = 'auto',
  options: ImageOptions = {},
): DiskImage {
  const name = format === 'auto' ? probeImage(path, options.window) : format;
  const known = formatOf(name, path);
  if (options.snapshot !== undefined && known.hasSnapshots !== true) {
    throw new DiskError('usage', `${path}: ${name} images have no internal snapshots`, {
      hint: 'import it without --image-snapshot',
    });
  }
  const image = known.open(path, options);
  try {
    const names = image.parent?.names.reduce((sum, one) => sum + one.length, 0) ?? 0;
    currentBudget().take(IMAGE_BYTES + names, path);
  } catch (error) {
    image.close();
    throw error;
  }
  if (options.window !== undefined) shiftLocations(image, options.window.offset);
  if (image.virtualSize >= 1 && image.virtualSize <= MAX_DISK_SIZE) return image;
  image.close();
  const size = formatSize(image.virtualSize);
  throw new DiskError('not-supported', `${path}: a disk of ${size} is not from 1 byte to 64 TiB`);
}

/**
 * Opens an image of which somebody states the format (`--format`, a machine's file). A file of
 * another format is no damaged one of this: what it looks like is said instead.
 * @throws DiskError `usage` for a file of another format; else what `openImage` throws.
 */
export function openStated(path: string, format = 'auto', options: ImageOptions = {}): DiskImage {
  try {
    return openImage(path, format, options);
  } catch (error) {
    if (!(error instanceof DiskError) || error.code !== 'damaged' || !isFormatName(format)) {
      throw error;
    }
    const found = probeImage(path, options.window);
    if (found === format) throw error;
    const what =
      found === 'raw'
        ? `${error.message}; nothing in it says that it is ${format}, it looks like a raw disk`
        : `${path} is not ${format}: by its first or last bytes it is ${found}`;
    throw new DiskError('usage', what, {
      hint: `state the format that it has (${found}), or none`,
      cause: error,
    });
  }
}

/**
 * The format that a file says it is of by its magic; `raw` where there is none.
 * @throws DiskError `not-supported` for compressed files, archives and foreign formats.
 */
export function probeImage(path: string, window?: FileWindow): FormatName {
  const file = HostFile.open(path, window);
  try {
    const header = readPart(file, 0, PROBE_HEADER_SIZE);
    const footerSize = Math.min(PROBE_FOOTER_SIZE, file.size);
    const footer = readPart(file, file.size - footerSize, footerSize);
    // The first bytes of a fixed VHD are the guest's, as with a raw disk; its footer is not.
    if (endsAsFixedVhd(footer, file.size)) return 'vhd';
    const found = FORMATS.find((format) => format.probe(header, footer));
    if (found !== undefined) return found.name;
    refuseForeign(path, header, footer);
    return 'raw';
  } finally {
    file.close();
  }
}

/** How images of a format are written; undefined where they are only read. */
export function writingOf(format: FormatName): ImageWriting | undefined {
  return FORMATS.find(({ name }) => name === format)?.writing;
}

function formatOf(name: string, path: string): ImageFormat {
  const format = FORMATS.find((candidate) => candidate.name === name);
  if (format !== undefined) return format;
  throw new DiskError('not-supported', `${path}: format ${JSON.stringify(name)} is not supported`, {
    hint: `the formats are ${FORMAT_NAMES.join(', ')}`,
  });
}

/** An image knows places in its window; who asks for one wants the place in the file. */
function shiftLocations(image: DiskImage, start: number): void {
  const locate = image.locate?.bind(image);
  if (locate === undefined) return;
  image.locate = (offset) => {
    const found = locate(offset);
    return found?.offset === undefined ? found : { ...found, offset: found.offset + start };
  };
}

function readPart(file: ReadableFile, offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(Math.min(length, file.size));
  file.readExact(bytes, 0, bytes.length, offset);
  return bytes;
}
