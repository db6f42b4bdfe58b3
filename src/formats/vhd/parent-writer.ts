/** What a new differencing VHD says of its parent: identity, names, and locators of the file. */
import { posix } from 'node:path';
import { alignUp, KiB } from '../../common/units.js';
import { NIL_UUID } from '../../common/uuid.js';
import { fileState } from '../../storage/host-path.js';
import type { OutputFile } from '../../storage/output-files.js';
import { unsupported } from '../image-error.js';
import type { ParentLink } from '../image-writer.js';
import { windowsNames } from '../windows-path.js';
import { NO_CHILD } from '../write-checks.js';
import { timeStampOf } from './footer-writer.js';
import {
  type DYNAMIC_HEADER,
  LOCATOR_ABSOLUTE,
  LOCATOR_RELATIVE,
  type PARENT_LOCATOR,
} from './vhd-layout.js';

type Locator = ReturnType<typeof PARENT_LOCATOR.decode>;
type ParentFields = Pick<
  ReturnType<typeof DYNAMIC_HEADER.decode>,
  'parentUuid' | 'parentTimeStamp' | 'parentName' | 'parentLocators'
>;

const NO_LOCATOR: Locator = {
  platformCode: 0,
  dataSpace: 0,
  dataLength: 0,
  reserved: 0,
  dataOffset: 0n,
};
const LOCATOR_COUNT = 8;
/** Windows gives each locator whole pages, so that another path can be entered in place. */
const LOCATOR_ALIGNMENT = 4 * KiB;

export interface VhdParent {
  readonly fields: ParentFields;
  /** What the locators lead to, ascending. */
  readonly texts: readonly { readonly data: Buffer; readonly offset: number }[];
  /** Where the space of the last one ends. */
  readonly end: number;
}

/**
 * @param start where locators may lie in the child.
 * @throws DiskError `not-supported` for a parent that a child cannot name, or of another size.
 */
export function describeParent(
  path: string,
  parent: ParentLink,
  options: { readonly virtualSize: number; readonly start: number },
): VhdParent {
  const { image } = parent;
  const { uuid = NIL_UUID } = image.info().identity;
  if (uuid === NIL_UUID) {
    throw unsupported(path, `its parent ${image.path} has no UUID that a child could name`);
  }
  if (image.virtualSize !== options.virtualSize) {
    const sizes = `${image.virtualSize} bytes, the disk is of ${options.virtualSize}`;
    throw unsupported(
      path,
      `a differencing VHD is as large as its parent; ${image.path} is of ${sizes}`,
      NO_CHILD,
    );
  }
  const { relative, absolute } = windowsNames(path, parent);
  const found = [
    { code: LOCATOR_ABSOLUTE, text: absolute },
    { code: LOCATOR_RELATIVE, text: relative },
  ].filter(({ text }) => text !== undefined);
  let end = options.start;
  const texts: { data: Buffer; offset: number }[] = [];
  const parentLocators = found.map(({ code, text }): Locator => {
    const data = Buffer.from(text!, 'utf16le');
    const dataSpace = alignUp(data.length, LOCATOR_ALIGNMENT);
    const offset = end;
    texts.push({ data, offset });
    end += dataSpace;
    const dataLength = data.length;
    return { platformCode: code, dataSpace, dataLength, reserved: 0, dataOffset: BigInt(offset) };
  });
  while (parentLocators.length < LOCATOR_COUNT) parentLocators.push(NO_LOCATOR);
  const parentName = Buffer.from(posix.basename(image.path), 'utf16le').swap16();
  const parentTimeStamp = timeStampOf(Number(fileState(image.path).mtimeNs / 1_000_000n));
  return { fields: { parentUuid: uuid, parentTimeStamp, parentName, parentLocators }, texts, end };
}

export function writeLocators(file: OutputFile, parent: VhdParent): void {
  for (const { data, offset } of parent.texts) file.write(data, 0, data.length, offset);
}
