/** Reads the headers of hosted and ESXi sparse extents and refuses what cannot be read rightly. */
import { DiskError } from '../../common/errors.js';
import { GiB, MAX_DISK_SIZE, SECTOR_SIZE, safeNumber } from '../../common/units.js';
import type { ReadableFile } from '../../storage/host-file.js';
import { MAX_COMPRESSED_GRAIN } from './compressed-grains.js';
import { MAX_DESCRIPTOR_SIZE } from './descriptor.js';
import { directorySize } from './grain-map.js';
import type { SparseGeometry } from './sparse-extent.js';
import {
  COMPRESSION_DEFLATE,
  COMPRESSION_NONE,
  COWD_ENTRIES_PER_TABLE,
  COWD_HEADER,
  COWD_MAGIC,
  FLAG_COMPRESSED,
  FLAG_MARKERS,
  FLAG_NEWLINE_TEST,
  FLAG_ZEROED_GRAINS,
  FLAGS_COMPATIBLE,
  FLAGS_KNOWN,
  FOOTER_OFFSET_FROM_END,
  GD_AT_END,
  NEWLINE_TEST,
  SPARSE_HEADER,
  SPARSE_MAGIC,
  SPARSE_VERSION_MAX,
  type SparseHeader,
} from './sparse-layout.js';

/**
 * VMware writes 512. Many small tables would make maps of an image slow, large ones take memory.
 */
const MIN_ENTRIES_PER_TABLE = 64;
const MAX_ENTRIES_PER_TABLE = 4096;
const MAX_GRAIN_SIZE = GiB;
const UNCLEAN = 'was not closed cleanly by the program that wrote it last';

/** Reads a hosted header, checks its magic, version, flags and newline test. @throws DiskError */
export function readSparseHeader(file: ReadableFile): SparseHeader {
  const header = decodeAt(file, 0);
  checkIdentity(file.path, header);
  return header;
}

/**
 * Turns the header (or the footer that it refers to) into bytes and checks every size.
 * @throws DiskError `damaged`, `not-supported`.
 */
export function sparseGeometry(file: ReadableFile, first: SparseHeader): SparseGeometry {
  const header = first.directory === GD_AT_END ? readFooter(file, first) : first;
  const { path } = file;
  const compressed = (header.flags & FLAG_COMPRESSED) !== 0;
  checkCompression(path, header, compressed);
  const geometry = {
    length: inBytes(header.capacity, `${path}: VMDK capacity`),
    grainSize: inBytes(header.grainSize, `${path}: VMDK grain size`),
    entriesPerTable: header.entriesPerTable,
    directoryOffset: inBytes(header.directory, `${path}: VMDK grain directory`),
    own: ownPlaces(path, first),
    compressed,
    zeroedGrains: (header.flags & FLAG_ZEROED_GRAINS) !== 0,
    notes: notesOf(header),
  };
  checkGeometry(file, geometry);
  return geometry;
}

/** Reads the header of an ESXi sparse extent. @throws DiskError */
export function cowdGeometry(file: ReadableFile): SparseGeometry {
  const { path } = file;
  const header = COWD_HEADER.decode(readHead(file, COWD_HEADER.size, 'COWD header'));
  if (header.magic !== COWD_MAGIC) throw damaged(path, 'no COWD magic: not an ESXi sparse extent');
  if (header.version !== 1) throw unsupported(path, `COWD version ${header.version}`);
  const geometry = {
    length: header.capacity * SECTOR_SIZE,
    grainSize: header.grainSize * SECTOR_SIZE,
    entriesPerTable: COWD_ENTRIES_PER_TABLE,
    directoryOffset: header.directory * SECTOR_SIZE,
    own: [{ offset: 0, length: COWD_HEADER.size }],
    compressed: false,
    zeroedGrains: false,
    notes: header.uncleanShutdown === 0 ? [] : [UNCLEAN],
  };
  checkGeometry(file, geometry);
  const covered = header.directoryEntries * COWD_ENTRIES_PER_TABLE * geometry.grainSize;
  if (covered < geometry.length) {
    const what = `COWD directory of ${header.directoryEntries} entries`;
    throw damaged(path, `${what} is too short for a disk of ${geometry.length} bytes`);
  }
  return geometry;
}

/**
 * The embedded descriptor's bytes; undefined where the extent has none. @throws DiskError `damaged`
 */
export function readEmbeddedDescriptor(file: ReadableFile, header: SparseHeader) {
  if (header.descriptorOffset === 0n) return undefined;
  const { path } = file;
  const offset = inBytes(header.descriptorOffset, `${path}: VMDK descriptor offset`);
  const size = inBytes(header.descriptorSize, `${path}: VMDK descriptor size`);
  if (size === 0 || size > MAX_DESCRIPTOR_SIZE) {
    throw damaged(path, `VMDK descriptor of ${size} bytes is not from 1 byte to 1 MiB`);
  }
  if (offset + size > file.size) {
    throw damaged(path, `VMDK descriptor at ${offset} lies past the end of the file`);
  }
  const bytes = Buffer.alloc(size);
  file.readExact(bytes, 0, size, offset);
  return bytes;
}

function damaged(path: string, what: string): DiskError {
  return new DiskError('damaged', `${path}: ${what}`);
}

function unsupported(path: string, what: string): DiskError {
  return new DiskError('not-supported', `${path}: ${what} is not supported`, {
    hint: `convert it: vmware-vdiskmanager -r ${path} -t 0 NEW.vmdk`,
  });
}

/** A field in sectors as bytes. */
function inBytes(sectors: bigint, what: string): number {
  return safeNumber(sectors * BigInt(SECTOR_SIZE), what);
}

/** Header and descriptor. The descriptor may lie anywhere, behind the grains, too. */
function ownPlaces(path: string, header: SparseHeader): SparseGeometry['own'] {
  const start = { offset: 0, length: SPARSE_HEADER.size };
  if (header.descriptorOffset === 0n) return [start];
  const offset = inBytes(header.descriptorOffset, `${path}: VMDK descriptor offset`);
  const length = inBytes(header.descriptorSize, `${path}: VMDK descriptor size`);
  return [start, { offset, length }];
}

function notesOf({ flags, uncleanShutdown }: SparseHeader): string[] {
  const unknown = flags & ~FLAGS_KNOWN;
  return [
    ...(uncleanShutdown === 0 ? [] : [UNCLEAN]),
    ...(unknown === 0 ? [] : [`unknown compatible flags: 0x${unknown.toString(16)}`]),
  ];
}

function readHead(file: ReadableFile, size: number, what: string): Buffer {
  if (file.size < size) {
    throw damaged(file.path, `${file.size} bytes are too short for a VMDK ${what} of ${size}`);
  }
  const bytes = Buffer.alloc(size);
  file.readExact(bytes, 0, size, 0);
  return bytes;
}

function decodeAt(file: ReadableFile, offset: number): SparseHeader {
  if (offset === 0) return SPARSE_HEADER.decode(readHead(file, SPARSE_HEADER.size, 'header'));
  const bytes = Buffer.alloc(SPARSE_HEADER.size);
  file.readExact(bytes, 0, bytes.length, offset);
  return SPARSE_HEADER.decode(bytes);
}

function checkIdentity(path: string, header: SparseHeader): void {
  if (header.magic !== SPARSE_MAGIC) throw damaged(path, 'no VMDK magic: not a sparse extent');
  if (header.version < 1 || header.version > SPARSE_VERSION_MAX) {
    throw unsupported(path, `VMDK version ${header.version}`);
  }
  const unknown = header.flags & ~FLAGS_KNOWN & ~FLAGS_COMPATIBLE;
  if (unknown !== 0) throw unsupported(path, `VMDK flag 0x${(unknown >>> 0).toString(16)}`);
  const tested = (header.flags & FLAG_NEWLINE_TEST) !== 0;
  if (tested && !header.newlineTest.equals(NEWLINE_TEST)) {
    throw new DiskError('damaged', `${path}: line ends were changed inside this binary file`, {
      hint: 'it went through a transfer in text mode: copy it again, in binary mode',
    });
  }
}

/** The header at the end of a streamed file, written when all grains were. */
function readFooter(file: ReadableFile, first: SparseHeader): SparseHeader {
  const { path } = file;
  const offset = file.size - FOOTER_OFFSET_FROM_END;
  const footer = offset >= SPARSE_HEADER.size ? decodeAt(file, offset) : undefined;
  if (footer?.magic !== SPARSE_MAGIC) {
    throw new DiskError('damaged', `${path}: the VMDK footer is missing: the file is cut off`, {
      hint: 'copy or export it again',
    });
  }
  checkIdentity(path, footer);
  const same = footer.capacity === first.capacity && footer.grainSize === first.grainSize;
  if (!same || footer.directory === GD_AT_END) {
    throw damaged(path, 'VMDK header and footer contradict each other');
  }
  return footer;
}

function checkCompression(path: string, header: SparseHeader, compressed: boolean): void {
  const expected = compressed ? COMPRESSION_DEFLATE : COMPRESSION_NONE;
  if (header.compression !== expected) {
    throw unsupported(path, `VMDK compression ${header.compression} with these flags`);
  }
  if (compressed && (header.flags & FLAG_MARKERS) === 0) {
    throw unsupported(path, 'a compressed VMDK without markers');
  }
}

function checkGeometry(file: ReadableFile, geometry: SparseGeometry): void {
  const { path } = file;
  const { length, grainSize, entriesPerTable, directoryOffset, compressed } = geometry;
  if (length === 0 || length > MAX_DISK_SIZE) {
    throw damaged(path, `VMDK capacity of ${length} bytes is not from 1 sector to 64 TiB`);
  }
  const largest = compressed ? MAX_COMPRESSED_GRAIN : MAX_GRAIN_SIZE;
  if (grainSize === 0 || grainSize > largest || !Number.isInteger(Math.log2(grainSize))) {
    const range = `a power of two from 512 to ${largest}`;
    throw damaged(path, `VMDK grain size of ${grainSize} bytes is not ${range}`);
  }
  if (entriesPerTable < MIN_ENTRIES_PER_TABLE || entriesPerTable > MAX_ENTRIES_PER_TABLE) {
    const range = `from ${MIN_ENTRIES_PER_TABLE} to ${MAX_ENTRIES_PER_TABLE}`;
    throw damaged(path, `VMDK grain tables of ${entriesPerTable} entries are not ${range}`);
  }
  const grainCount = Math.ceil(length / grainSize);
  const end = directoryOffset + directorySize({ grainCount, entriesPerTable });
  if (directoryOffset === 0 || end > file.size) {
    const place = `at ${directoryOffset}, ending at ${end}`;
    throw damaged(path, `VMDK grain directory ${place}, is not inside the file (${file.size})`);
  }
}
