/** The optional sections between a qcow2 header and the backing file name. */
import { alignUp } from '../../common/units.js';
import { damaged } from '../image-error.js';
import {
  EXTENSION,
  EXTENSION_BACKING_FORMAT,
  EXTENSION_DATA_FILE,
  EXTENSION_END,
  EXTENSION_FEATURE_NAMES,
  FEATURE_NAME_SIZE,
} from './qcow2-layout.js';

export interface HeaderExtensions {
  readonly backingFormat: string | undefined;
  readonly dataFileName: string | undefined;
  /** Bit of the incompatible features -> its name, as the image gives it. */
  readonly incompatibleNames: ReadonlyMap<number, string>;
  /** Types that are not known, each once. */
  readonly unknownTypes: readonly number[];
}

/**
 * Known, and of no matter to a reader: bitmaps, and the encryption header of images that are
 * refused anyway.
 */
const IGNORED_TYPES: ReadonlySet<number> = new Set([0x23852875, 0x0537be77]);
/** Unknown types that are remembered for `info`. */
const MAX_UNKNOWN_TYPES = 16;

/**
 * @param start the file's first cluster, or all of a shorter file.
 * @param from where the extensions begin. @param to where their area ends.
 * @throws DiskError `damaged` when one reaches over the end.
 */
export function readExtensions(
  path: string,
  start: Buffer,
  from: number,
  to: number,
): HeaderExtensions {
  let backingFormat: string | undefined;
  let dataFileName: string | undefined;
  const incompatibleNames = new Map<number, string>();
  const unknownTypes = new Set<number>();
  let at = from;
  while (at + EXTENSION.size <= to) {
    const { type, length } = EXTENSION.decode(start, at);
    at += EXTENSION.size;
    if (type === EXTENSION_END) break;
    if (length > to - at) {
      const shown = `0x${type.toString(16).padStart(8, '0')}`;
      throw damaged(path, `header extension ${shown} of ${length} bytes reaches out of the header`);
    }
    const data = start.subarray(at, at + length);
    // QEMU writes an empty one where a backing file was changed without stating its format.
    if (type === EXTENSION_BACKING_FORMAT) backingFormat = data.toString('utf8') || undefined;
    else if (type === EXTENSION_DATA_FILE) dataFileName = data.toString('utf8');
    else if (type === EXTENSION_FEATURE_NAMES) readFeatureNames(data, incompatibleNames);
    else if (!IGNORED_TYPES.has(type) && unknownTypes.size < MAX_UNKNOWN_TYPES) {
      unknownTypes.add(type);
    }
    at += alignUp(length, 8);
  }
  return { backingFormat, dataFileName, incompatibleNames, unknownTypes: [...unknownTypes] };
}

function readFeatureNames(data: Buffer, incompatibleNames: Map<number, string>): void {
  for (let at = 0; at + FEATURE_NAME_SIZE <= data.length; at += FEATURE_NAME_SIZE) {
    if (data[at] !== 0) continue;
    const name = data.toString('latin1', at + 2, at + FEATURE_NAME_SIZE);
    incompatibleNames.set(data[at + 1]!, name.split('\0', 1)[0]!);
  }
}
