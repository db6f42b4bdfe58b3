/** How a differencing VHD names its parent and knows it again. */

import { NIL_UUID } from '../../common/uuid.js';
import type { DiskImage, ParentReference } from '../../engine/disk-image.js';
import type { ReadableFile } from '../../storage/host-file.js';
import { fileState } from '../../storage/host-path.js';
import { parentNames } from '../windows-path.js';
import type { DynamicHeader } from './dynamic-header.js';
import { isoTime } from './vhd-footer.js';
import {
  EPOCH_SECONDS,
  LOCATOR_ABSOLUTE,
  LOCATOR_MACX,
  LOCATOR_RELATIVE,
  MAX_LOCATOR_LENGTH,
  type PARENT_LOCATOR,
} from './vhd-layout.js';

type Locator = ReturnType<typeof PARENT_LOCATOR.decode>;

/** Windows 10 does not say what time the parent had. */
const NO_TIME_STAMP = 0;
/** Time stamps of file systems are no more exact than that, in seconds. */
const TIME_TOLERANCE = 2;

/** What XenServer and xcp-ng call themselves. */
const XEN_CREATOR = /^tap\b/;

/**
 * The reference that open-chain follows. The UUID is the parent's identity; the time stamp is worth
 * a warning only, for copying a file changes it. Relative paths come first, then bare names, then
 * absolute paths.
 *
 * Without a UUID the parent can be a raw disk: XenServer says so by that, of images by others the
 * user must say it.
 */
export function parentReference(
  file: ReadableFile,
  header: DynamicHeader,
  creator: string,
): ParentReference {
  const { parentUuid, parentTimeStamp } = header.fields;
  const names = namesIn(file, header);
  if (parentUuid === NIL_UUID) {
    const mismatch = (parent: DiskImage) => mismatchWithoutUuid(parent);
    return XEN_CREATOR.test(creator) ? { names, format: 'raw', mismatch } : { names, mismatch };
  }
  return {
    names,
    format: 'vhd',
    isIdentified: true,
    mismatch: (parent) => mismatchOf(parent, parentUuid),
    warning: (parent) => warningOf(parent, parentTimeStamp),
  };
}

function namesIn(file: ReadableFile, header: DynamicHeader): string[] {
  const { parentLocators, parentName } = header.fields;
  const textOf = (code: number) =>
    parentLocators
      .filter(({ platformCode }) => platformCode === code)
      .map((locator) => readLocator(file, locator));
  const relative = textOf(LOCATOR_RELATIVE).map((data) => decodeUtf16(data, false));
  const absolute = textOf(LOCATOR_ABSOLUTE).map((data) => decodeUtf16(data, false));
  const urls = textOf(LOCATOR_MACX).map((data) => pathOfUrl(data.toString('utf8')));
  const name = decodeUtf16(parentName, true);
  const isAbsolute = (path: string) => /^([A-Za-z]:|[\\/])/.test(path);
  const others = [...urls, name].filter((path) => path !== '');
  return parentNames(
    [...relative, ...others.filter((path) => !isAbsolute(path))],
    [...absolute, ...others.filter(isAbsolute)],
  );
}

/** The locator's bytes; none when they do not lie in the file: the other locators may still do. */
function readLocator(file: ReadableFile, locator: Locator): Buffer {
  const { dataLength, dataOffset } = locator;
  const end = dataOffset + BigInt(dataLength);
  if (dataLength > MAX_LOCATOR_LENGTH || end > BigInt(file.size)) return Buffer.alloc(0);
  const data = Buffer.alloc(dataLength);
  file.readExact(data, 0, dataLength, Number(dataOffset));
  return data;
}

/**
 * UTF-16 up to its end mark. Locators are little endian and the name in the header big endian, but
 * not with every writer: the zero halves of the Latin characters tell, which every path has.
 */
function decodeUtf16(data: Buffer, isUsuallyBig: boolean): string {
  let end = 0;
  let zeroesFirst = 0;
  for (; end + 1 < data.length && (data[end] !== 0 || data[end + 1] !== 0); end += 2) {
    if (data[end] === 0) zeroesFirst += 1;
    if (data[end + 1] === 0) zeroesFirst -= 1;
  }
  const text = data.subarray(0, end);
  const isBig = zeroesFirst === 0 ? isUsuallyBig : zeroesFirst > 0;
  return (isBig ? Buffer.from(text).swap16() : text).toString('utf16le');
}

/** `file://localhost/x/y%20z` as a path; what is no such URL as it is. */
function pathOfUrl(text: string): string {
  const path = text.split('\0', 1)[0]!.replace(/^file:\/\/(localhost(?=\/))?/, '');
  try {
    return decodeURIComponent(path);
  } catch {
    // A stray per cent sign: the writer did not encode, so there is nothing to decode.
    return path;
  }
}

function mismatchOf(parent: DiskImage, parentUuid: string): string | undefined {
  const expected = `the parent must be the VHD with UUID ${parentUuid}`;
  if (parent.format !== 'vhd') return `${expected}, ${parent.path} is ${parent.format}`;
  const found = parent.info().identity.uuid;
  return found === parentUuid ? undefined : `${expected}, ${parent.path} has ${found}`;
}

function mismatchWithoutUuid(parent: DiskImage): string | undefined {
  const { format, path } = parent;
  if (format === 'raw') return undefined;
  const uuid = parent.info().identity.uuid ?? 'none';
  if (format === 'vhd' && uuid === NIL_UUID) return undefined;
  return `the parent must be a raw disk, it has no UUID; ${path} is ${format} with UUID ${uuid}`;
}

function warningOf(parent: DiskImage, parentTimeStamp: number): string | undefined {
  if (parentTimeStamp === NO_TIME_STAMP) return undefined;
  const expected = isoTime(parentTimeStamp);
  if (parent.info().identity['time-stamp'] === expected) return undefined;
  const modified = Number(fileState(parent.path).mtimeNs / 1_000_000_000n) - EPOCH_SECONDS;
  if (Math.abs(modified - parentTimeStamp) <= TIME_TOLERANCE) return undefined;
  return (
    `${parent.path} was changed at ${isoTime(modified)}, its child was made from it as it was at ` +
    `${expected}: harmless if it was only copied`
  );
}
