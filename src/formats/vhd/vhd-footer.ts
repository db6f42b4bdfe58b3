/** Finds and judges the footer of a VHD: at its end, or its copy at the start. */
import { onesComplementSum } from '../../common/checksum.js';
import { SECTOR_SIZE, safeNumber } from '../../common/units.js';
import type { ReadableFile } from '../../storage/host-file.js';
import { damaged, unsupported } from '../image-error.js';
import {
  DISK_TYPE_DIFFERENCING,
  DISK_TYPE_DYNAMIC,
  DISK_TYPE_FIXED,
  EPOCH_SECONDS,
  FOOTER,
  FOOTER_COOKIE,
  MAJOR_VERSION,
  OLD_FOOTER_SIZE,
} from './vhd-layout.js';

type Fields = ReturnType<typeof FOOTER.decode>;

export interface VhdFooter {
  readonly diskType: 2 | 3 | 4;
  /** Bytes: the current size, which is the disk's. */
  readonly virtualSize: number;
  /** Of the dynamic disk header. */
  readonly dataOffset: bigint;
  readonly uuid: string;
  /** ISO 8601. */
  readonly timeStamp: string;
  readonly creator: string;
  /** Where the footer at the end begins; the file's size where there is none. */
  readonly end: number;
  readonly notes: readonly string[];
}

const TYPES: readonly number[] = [DISK_TYPE_FIXED, DISK_TYPE_DYNAMIC, DISK_TYPE_DIFFERENCING];
/** Programs whose images QEMU takes to be as large as their geometry says. */
const SIZED_BY_GEOMETRY: ReadonlySet<string> = new Set(['vpc ', 'qemu']);
const FOOTER_SIZES = [SECTOR_SIZE, OLD_FOOTER_SIZE] as const;

/** Whether these bytes have the cookie of a footer at `offset`. */
function hasFooterCookie(bytes: Buffer, offset: number): boolean {
  if (offset < 0) return false;
  return bytes.toString('latin1', offset, offset + FOOTER_COOKIE.length) === FOOTER_COOKIE;
}

/** Whether a file that begins and ends with these bytes says that it is a VHD. */
export function hasVhdCookie(header: Buffer, footer: Buffer): boolean {
  return (
    hasFooterCookie(header, 0) ||
    FOOTER_SIZES.some((size) => hasFooterCookie(footer, footer.length - size))
  );
}

/**
 * Whether a file of this size that ends with `end` is a fixed VHD beyond doubt: its footer is sound
 * and lies right behind the disk.
 */
export function endsAsFixedVhd(end: Buffer, fileSize: number): boolean {
  return FOOTER_SIZES.some((size) => {
    if (!hasFooterCookie(end, end.length - size)) return false;
    const bytes = Buffer.alloc(FOOTER.size);
    end.copy(bytes, 0, end.length - size);
    const { diskType, currentSize } = FOOTER.decode(bytes);
    const isWhole = currentSize === BigInt(fileSize - size);
    return diskType === DISK_TYPE_FIXED && isWhole && isSound(bytes);
  });
}

/**
 * Takes the footer at the end if it is sound, else the copy at the start, which fixed disks do not
 * have.
 * @throws DiskError `damaged` when there is neither, `not-supported` for other versions and disk
 *   types.
 */
export function readVhdFooter(file: ReadableFile): VhdFooter {
  const { path } = file;
  const atEnd = readEnd(file);
  const copy = readCopy(file);
  const copyIsSound = copy !== undefined && isSound(copy);
  const notes: string[] = [];
  let bytes = atEnd?.bytes;
  if (atEnd === undefined || !isSound(atEnd.bytes)) {
    const what = atEnd === undefined ? 'is missing' : 'is damaged (checksum)';
    if (!copyIsSound || FOOTER.decode(copy).diskType === DISK_TYPE_FIXED) {
      throw damaged(path, `the VHD footer at the end ${what}, and there is no sound copy of it`);
    }
    bytes = copy;
    notes.push(`the footer at the end ${what}; its copy at the start was used`);
  }
  const fields = FOOTER.decode(bytes!);
  checkFields(path, fields);
  const isDynamic = fields.diskType !== DISK_TYPE_FIXED;
  if (isDynamic && !copyIsSound) notes.push('the copy of the footer at the start is damaged');
  const virtualSize = safeNumber(fields.currentSize, `${path}: virtual size`);
  notes.push(...quirksOf(fields, virtualSize));
  return {
    diskType: fields.diskType as VhdFooter['diskType'],
    virtualSize,
    dataOffset: fields.dataOffset,
    uuid: fields.uuid,
    timeStamp: isoTime(fields.timeStamp),
    creator: creatorOf(fields),
    end: atEnd?.offset ?? file.size,
    notes,
  };
}

/** A time stamp of the format as ISO 8601. */
export function isoTime(seconds: number): string {
  return new Date((EPOCH_SECONDS + seconds) * 1000).toISOString();
}

/** The last 512 or 511 bytes, where they have the cookie; a byte that is missing counts as zero. */
function readEnd(file: ReadableFile): { bytes: Buffer; offset: number } | undefined {
  for (const size of FOOTER_SIZES) {
    if (file.size < size) continue;
    const bytes = Buffer.alloc(FOOTER.size);
    file.readExact(bytes, 0, size, file.size - size);
    if (hasFooterCookie(bytes, 0)) return { bytes, offset: file.size - size };
  }
  return undefined;
}

function readCopy(file: ReadableFile): Buffer | undefined {
  if (file.size < FOOTER.size) return undefined;
  const bytes = Buffer.alloc(FOOTER.size);
  file.readExact(bytes, 0, bytes.length, 0);
  return hasFooterCookie(bytes, 0) ? bytes : undefined;
}

function isSound(bytes: Buffer): boolean {
  const { checksum } = FOOTER.decode(bytes);
  return checksum === onesComplementSum(bytes, FOOTER.offsetOf.checksum);
}

function checkFields(path: string, fields: Fields): void {
  const { version, diskType } = fields;
  if (version >>> 16 !== MAJOR_VERSION) {
    throw unsupported(path, `VHD version ${version >>> 16}.${version & 0xffff} is not supported`);
  }
  if (!TYPES.includes(diskType)) {
    throw unsupported(
      path,
      `VHD disk type ${diskType} is not supported, ` +
        'only 2 (fixed), 3 (dynamic) and 4 (differencing)',
    );
  }
  if (fields.currentSize === 0n) throw damaged(path, 'the VHD footer says a size of 0');
}

function quirksOf(fields: Fields, virtualSize: number): string[] {
  const notes: string[] = [];
  const { cylinders, heads, sectorsPerTrack } = fields;
  const geometrySize = cylinders * heads * sectorsPerTrack * SECTOR_SIZE;
  const creator = fields.creatorApplication.toString('latin1');
  if (SIZED_BY_GEOMETRY.has(creator) && geometrySize !== virtualSize) {
    notes.push(
      `its geometry gives ${geometrySize} bytes: QEMU goes by that for images by "${creator}"`,
    );
  }
  if (fields.originalSize !== fields.currentSize) {
    notes.push(`was resized: its original size was ${fields.originalSize} bytes`);
  }
  if (fields.savedState !== 0) notes.push('is marked as part of a saved machine state');
  return notes;
}

/** `vpc 5.3 (Wi2k)`: program, version, host system. */
function creatorOf(fields: Fields): string {
  const text = (bytes: Buffer) =>
    bytes
      .toString('latin1')
      .replace(/[^ -~]/g, '?')
      .trim();
  const { creatorVersion } = fields;
  const version = `${creatorVersion >>> 16}.${creatorVersion & 0xffff}`;
  return `${text(fields.creatorApplication)} ${version} (${text(fields.creatorHostOs)})`;
}
