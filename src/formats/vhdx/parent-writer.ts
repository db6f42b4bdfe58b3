/** What a new differencing VHDX says of its parent. */
import { NIL_UUID } from '../../common/uuid.js';
import { unsupported } from '../image-error.js';
import type { ParentLink } from '../image-writer.js';
import { windowsNames } from '../windows-path.js';
import { LOCATOR_TYPE_VHDX, PARENT_LOCATOR, PARENT_LOCATOR_ENTRY } from './vhdx-layout.js';

/**
 * The metadata item (2.6.2.6): the parent's DataWriteGuid, which a guest's first write to it would
 * change, and paths. The path by volume is left out: only Windows knows the ids of its volumes.
 * @throws DiskError `not-supported` for a parent that a child cannot name.
 */
export function encodeParentLocator(path: string, parent: ParentLink): Buffer {
  const { 'data-write-guid': linkage = NIL_UUID } = parent.image.info().identity;
  if (linkage === NIL_UUID) {
    throw unsupported(
      path,
      `its parent ${parent.image.path} has no data write GUID that a child could name`,
    );
  }
  const { relative, absolute } = windowsNames(path, parent);
  const texts: string[] = ['parent_linkage', `{${linkage}}`];
  if (relative !== undefined) texts.push('relative_path', relative);
  if (absolute !== undefined) texts.push('absolute_win32_path', absolute);
  return encodeTexts(texts.map((text) => Buffer.from(text, 'utf16le')));
}

/** Keys and values by turns, behind the header and the entries that point to them. */
function encodeTexts(texts: readonly Buffer[]): Buffer {
  const keyValueCount = texts.length / 2;
  const entries: Buffer[] = [];
  let end = PARENT_LOCATOR.size + keyValueCount * PARENT_LOCATOR_ENTRY.size;
  for (let index = 0; index < texts.length; index += 2) {
    const lengths = [texts[index]!.length, texts[index + 1]!.length];
    const valueOffset = end + lengths[0]!;
    entries.push(PARENT_LOCATOR_ENTRY.encode({ keyOffset: end, valueOffset, lengths }));
    end = valueOffset + lengths[1]!;
  }
  const header = PARENT_LOCATOR.encode({ locatorType: LOCATOR_TYPE_VHDX, keyValueCount });
  return Buffer.concat([header, ...entries, ...texts]);
}
