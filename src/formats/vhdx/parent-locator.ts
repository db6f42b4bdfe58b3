/** How a differencing VHDX names its parent and knows it again. */
import type { DiskImage, ParentReference } from '../../engine/disk-image.js';
import { damaged, unsupported } from '../image-error.js';
import { currentBudget, OBJECT_BYTES } from '../memory-budget.js';
import { quoteName } from '../sibling-path.js';
import { parentNames } from '../windows-path.js';
import {
  LOCATOR_TYPE_VHDX,
  MAX_ITEM_LENGTH,
  PARENT_LOCATOR,
  PARENT_LOCATOR_ENTRY,
} from './vhdx-layout.js';

/** Keys and values of the locator, as they are in the file. */
export type ParentLocator = ReadonlyMap<string, string>;

export const LINKAGE_KEYS = ['parent_linkage', 'parent_linkage2'] as const;

/**
 * Decodes the metadata item.
 * @throws DiskError `damaged` when it contradicts itself, `not-supported` for another kind of
 *   parent.
 */
export function decodeParentLocator(path: string, item: Buffer): ParentLocator {
  if (item.length < PARENT_LOCATOR.size) throw damaged(path, 'the parent locator is cut off');
  const { locatorType, keyValueCount } = PARENT_LOCATOR.decode(item);
  if (locatorType !== LOCATOR_TYPE_VHDX) {
    throw unsupported(path, `its parent is of the unknown kind ${locatorType}`);
  }
  if (PARENT_LOCATOR.size + keyValueCount * PARENT_LOCATOR_ENTRY.size > item.length) {
    throw damaged(path, `the parent locator says ${keyValueCount} entries, but is too short`);
  }
  const values = new Map<string, string>();
  let length = 0;
  for (let index = 0; index < keyValueCount; index += 1) {
    const at = PARENT_LOCATOR.size + index * PARENT_LOCATOR_ENTRY.size;
    const { keyOffset, valueOffset, lengths } = PARENT_LOCATOR_ENTRY.decode(item, at);
    length += lengths[0]! + lengths[1]!;
    // Texts that lie on each other could be gigabytes.
    if (length > MAX_ITEM_LENGTH) {
      throw damaged(path, 'the entries of the parent locator are more than it can hold');
    }
    const key = decodeText(path, item, keyOffset, lengths[0]!);
    if (values.has(key)) throw damaged(path, `the parent locator has ${quoteName(key)} twice`);
    values.set(key, decodeText(path, item, valueOffset, lengths[1]!));
  }
  currentBudget().take(length + keyValueCount * OBJECT_BYTES, path);
  return values;
}

/**
 * The reference that open-chain follows. The parent is known by its DataWriteGuid, which changes
 * when a guest writes to it; `parent_linkage2` is what a merge that was interrupted leaves.
 * @throws DiskError `damaged` when the locator lacks identity or path.
 */
export function parentReference(
  path: string,
  locator: ParentLocator,
  logicalSectorSize: number,
): ParentReference {
  const linkages = LINKAGE_KEYS.flatMap((key) => locator.get(key) ?? []).map(plainGuid);
  if (linkages.length === 0) throw damaged(path, 'the parent locator does not identify the parent');
  const valuesOf = (...keys: string[]) => keys.flatMap((key) => locator.get(key) ?? []);
  const names = parentNames(
    valuesOf('relative_path'),
    valuesOf('volume_path', 'absolute_win32_path'),
  );
  if (names.length === 0) throw damaged(path, 'the parent locator gives no path of the parent');
  return {
    names,
    format: 'vhdx',
    isIdentified: true,
    mismatch: (parent) => mismatchOf(parent, linkages, logicalSectorSize),
  };
}

function mismatchOf(
  parent: DiskImage,
  linkages: readonly string[],
  logicalSectorSize: number,
): string | undefined {
  const expected = `the parent must be the VHDX with data write GUID ${linkages.join(' or ')}`;
  if (parent.format !== 'vhdx') return `${expected}, ${parent.path} is ${parent.format}`;
  const info = parent.info();
  const found = info.identity['data-write-guid'];
  if (found === undefined || !linkages.includes(found)) {
    return `${expected}, ${parent.path} has ${found}: it was written to, or is another one`;
  }
  if (info.logicalSectorSize !== logicalSectorSize) {
    const sizes = `${info.logicalSectorSize}, its child of ${logicalSectorSize}`;
    return `${parent.path} has logical sectors of ${sizes}`;
  }
  return undefined;
}

/** `{GUID}` in any case, with or without braces, as this project writes UUIDs. */
function plainGuid(text: string): string {
  return text.replace(/^\{|\}$/g, '').toLowerCase();
}

function decodeText(path: string, item: Buffer, offset: number, length: number): string {
  if (offset + length > item.length) {
    throw damaged(
      path,
      `an entry of the parent locator (${offset}, ${length} bytes) lies outside it`,
    );
  }
  return item.toString('utf16le', offset, offset + length).replace(/\0+$/, '');
}
