/**
 * Which formats there are: names, probing by magic, opening. The only file that imports the format
 * folders.
 */
import { DiskError } from '../common/errors.js';
import { formatSize, MAX_DISK_SIZE } from '../common/units.js';
import type { DiskImage } from '../engine/disk-image.js';
import { HostFile, type ReadableFile } from '../storage/host-file.js';
import { isPresent } from '../storage/host-path.js';
import { refuseForeign } from './foreign-magic.js';
import {
  FORMAT_NAMES,
  type FormatName,
  type ImageFormat,
  PROBE_FOOTER_SIZE,
  PROBE_HEADER_SIZE,
} from './image-format.js';
import type { ImageOptions } from './image-options.js';

export { FORMAT_NAMES, type FormatName, isFormatName } from './image-format.js';
export type { ImageOptions } from './image-options.js';

/** Module and exported names of each format that has a magic; raw is what remains. */
const MODULES = [
  { name: 'qcow2', path: './qcow2/qcow2-image.js', suffix: 'Qcow2' },
  { name: 'vhdx', path: './vhdx/vhdx-image.js', suffix: 'Vhdx' },
  { name: 'vdi', path: './vdi/vdi-image.js', suffix: 'Vdi' },
  { name: 'vmdk', path: './vmdk/vmdk-image.js', suffix: 'Vmdk' },
  // Last of those probed: a VHD may be told by its footer alone.
  { name: 'vhd', path: './vhd/vhd-image.js', suffix: 'Vhd' },
  { name: 'raw', path: './raw/raw-image.js', suffix: 'Raw' },
] as const satisfies readonly { name: FormatName; path: string; suffix: string }[];

/**
 * Loaded once, when this file is first imported (which a CLI does inside its handlers): afterwards
 * everything is synchronous, as I/O threads need it.
 */
const FORMATS: readonly ImageFormat[] = await loadFormats();

/**
 * Opens an image; under `auto` the magic decides, and a file with none that is known is raw.
 * @throws DiskError naming the file: `not-found`, `not-permitted`, `not-supported`, `damaged`.
 */
export function openImage(
  path: string,
  format: string = 'auto',
  options: ImageOptions = {},
): DiskImage {
  const name = format === 'auto' ? probeImage(path) : format;
  const image = formatOf(name, path).open(path, options);
  if (image.virtualSize >= 1 && image.virtualSize <= MAX_DISK_SIZE) return image;
  image.close();
  const size = formatSize(image.virtualSize);
  throw new DiskError('not-supported', `${path}: a disk of ${size} is not from 1 byte to 64 TiB`);
}

/**
 * The format that a file says it is of by its magic; `raw` where there is none.
 * @throws DiskError `not-supported` for compressed files, archives and foreign formats.
 */
export function probeImage(path: string): FormatName {
  const file = HostFile.open(path);
  try {
    const header = readPart(file, 0, PROBE_HEADER_SIZE);
    const footerSize = Math.min(PROBE_FOOTER_SIZE, file.size);
    const footer = readPart(file, file.size - footerSize, footerSize);
    const found = FORMATS.find((format) => format.probe(header, footer));
    if (found !== undefined) return found.name;
    refuseForeign(path, header);
    return 'raw';
  } finally {
    file.close();
  }
}

function formatOf(name: string, path: string): ImageFormat {
  const format = FORMATS.find((candidate) => candidate.name === name);
  if (format !== undefined) return format;
  throw new DiskError('not-supported', `${path}: format ${JSON.stringify(name)} is not supported`, {
    hint: `the formats are ${FORMAT_NAMES.join(', ')}`,
  });
}

function readPart(file: ReadableFile, offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(Math.min(length, file.size));
  file.readExact(bytes, 0, bytes.length, offset);
  return bytes;
}

async function loadFormats(): Promise<ImageFormat[]> {
  const formats: ImageFormat[] = [];
  for (const { name, path, suffix } of MODULES) {
    const module = await importIfPresent(path);
    if (module === undefined) continue;
    formats.push({
      name,
      probe: (module[`probe${suffix}`] ?? (() => false)) as ImageFormat['probe'],
      open: module[`open${suffix}`] as ImageFormat['open'],
    });
  }
  return formats;
}

/** A format whose module is not part of this build is not supported: `formatOf` says so by name. */
async function importIfPresent(path: string): Promise<Record<string, unknown> | undefined> {
  const source = path.replace(/js$/, 'ts');
  const present = [path, source].some((name) => isPresent(new URL(name, import.meta.url)));
  return present ? ((await import(path)) as Record<string, unknown>) : undefined;
}
