/** Where the regions of a VHDX lie: block allocation table, metadata, and what else there is. */
import { crc32cWithoutField } from '../../common/checksum.js';
import { safeNumber } from '../../common/units.js';
import type { ReadableFile } from '../../storage/host-file.js';
import type { NamedRange } from '../file-ranges.js';
import { damaged, unsupported } from '../image-error.js';
import {
  ALIGNMENT,
  CHECKSUM_OFFSET,
  HEADER_AREA_SIZE,
  MAX_TABLE_ENTRIES,
  REGION_BAT,
  REGION_ENTRY,
  REGION_METADATA,
  REGION_TABLE,
  REGION_TABLE_OFFSETS,
  REGION_TABLE_SIGNATURE,
  REGION_TABLE_SIZE,
} from './vhdx-layout.js';

export interface VhdxRegions {
  readonly bat: NamedRange;
  readonly metadata: NamedRange;
  /** All regions, those of unknown purpose included. */
  readonly all: readonly NamedRange[];
  readonly notes: readonly string[];
}

const NAMES: Readonly<Record<string, string>> = {
  [REGION_BAT]: 'the block allocation table',
  [REGION_METADATA]: 'the metadata region',
};

/**
 * @param file the file as it is after its log was replayed.
 * @throws DiskError `damaged` when neither copy of the table can be used or the one used cannot be
 *   true, `not-supported` for an unknown region that is required.
 */
export function readRegions(file: ReadableFile): VhdxRegions {
  const { path } = file;
  const notes: string[] = [];
  const copies = [readTable(file, 0), readTable(file, 1)];
  const table = copies[0] ?? copies[1];
  if (table === undefined) throw damaged(path, 'both region tables are damaged (checksum)');
  if (copies.includes(undefined)) {
    const bad = copies[0] === undefined ? 1 : 2;
    notes.push(`region table ${bad} of 2 is damaged; the other one was used`);
  }
  const regions = new Map<string, NamedRange>();
  const { entryCount } = REGION_TABLE.decode(table);
  if (entryCount > MAX_TABLE_ENTRIES) {
    throw damaged(path, `region table says ${entryCount} entries, at most 2047 are allowed`);
  }
  for (let index = 0; index < entryCount; index += 1) {
    const entry = REGION_ENTRY.decode(table, REGION_TABLE.size + index * REGION_ENTRY.size);
    const name = NAMES[entry.guid];
    if (name === undefined && (entry.required & 1) === 1) {
      throw unsupported(path, `needs the unknown region ${entry.guid}`);
    }
    if (name === undefined) notes.push(`unknown region ${entry.guid} is ignored`);
    if (regions.has(entry.guid)) throw damaged(path, `region ${entry.guid} is listed twice`);
    regions.set(entry.guid, checkPlace(file, entry, name ?? `region ${entry.guid}`));
  }
  const bat = regions.get(REGION_BAT);
  const metadata = regions.get(REGION_METADATA);
  if (bat === undefined) throw damaged(path, 'has no block allocation table');
  if (metadata === undefined) throw damaged(path, 'has no metadata region');
  return { bat, metadata, all: [...regions.values()], notes };
}

/** The table's bytes; undefined when it is damaged. */
function readTable(file: ReadableFile, index: 0 | 1): Buffer | undefined {
  const table = Buffer.alloc(REGION_TABLE_SIZE);
  file.readExact(table, 0, table.length, REGION_TABLE_OFFSETS[index]);
  const { signature, checksum } = REGION_TABLE.decode(table);
  const sound =
    signature === REGION_TABLE_SIGNATURE && checksum === crc32cWithoutField(table, CHECKSUM_OFFSET);
  return sound ? table : undefined;
}

function checkPlace(
  file: ReadableFile,
  entry: ReturnType<typeof REGION_ENTRY.decode>,
  name: string,
): NamedRange {
  const { path } = file;
  const offset = safeNumber(entry.fileOffset, `${path}: offset of ${name}`);
  const { length } = entry;
  if (offset % ALIGNMENT !== 0 || length % ALIGNMENT !== 0) {
    throw damaged(path, `${name} at ${offset} of ${length} bytes is not aligned to 1 MiB`);
  }
  if (offset < HEADER_AREA_SIZE || offset + length > file.size) {
    throw damaged(path, `${name} at ${offset} of ${length} bytes does not lie in the file`);
  }
  return { name, offset, length };
}
