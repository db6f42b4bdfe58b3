/** The header of dynamic and differencing VHDs: where the block table is, and who the parent is. */
import { onesComplementSum } from '../../common/checksum.js';
import { divCeil, SECTOR_SIZE, safeNumber } from '../../common/units.js';
import type { ReadableFile } from '../../storage/host-file.js';
import { damaged, unsupported } from '../image-error.js';
import type { VhdFooter } from './vhd-footer.js';
import { BAT_ENTRY_SIZE, DYNAMIC_COOKIE, DYNAMIC_HEADER, MAJOR_VERSION } from './vhd-layout.js';

export interface DynamicHeader {
  /** Where the header itself lies. */
  readonly offset: number;
  readonly tableOffset: number;
  /** Entries of the table that the disk needs. */
  readonly blockCount: number;
  /** Bytes of the table, as the header states them. */
  readonly tableLength: number;
  /** Bytes of data in a block; its sector bitmap lies in front of them. */
  readonly blockSize: number;
  readonly fields: ReturnType<typeof DYNAMIC_HEADER.decode>;
}

/**
 * @throws DiskError `damaged` for a header that contradicts itself, the footer or the file's
 *   length.
 */
export function readDynamicHeader(file: ReadableFile, footer: VhdFooter): DynamicHeader {
  const { path } = file;
  const offset = safeNumber(footer.dataOffset, `${path}: offset of the dynamic disk header`);
  if (offset + DYNAMIC_HEADER.size > file.size) {
    throw damaged(path, `the dynamic disk header at ${offset} lies past the end of the file`);
  }
  const bytes = Buffer.alloc(DYNAMIC_HEADER.size);
  file.readExact(bytes, 0, bytes.length, offset);
  const fields = DYNAMIC_HEADER.decode(bytes);
  if (fields.cookie.toString('latin1') !== DYNAMIC_COOKIE) {
    throw damaged(
      path,
      `there is no dynamic disk header at ${offset} (no ${DYNAMIC_COOKIE} cookie)`,
    );
  }
  if (fields.checksum !== onesComplementSum(bytes, DYNAMIC_HEADER.offsetOf.checksum)) {
    throw damaged(path, 'the dynamic disk header is damaged (checksum)');
  }
  if (fields.version >>> 16 !== MAJOR_VERSION) {
    throw unsupported(path, `version ${fields.version >>> 16} of the dynamic disk header`);
  }
  return { offset, fields, ...checkTable(file, footer, fields) };
}

function checkTable(
  file: ReadableFile,
  footer: VhdFooter,
  fields: DynamicHeader['fields'],
): Pick<DynamicHeader, 'tableOffset' | 'tableLength' | 'blockCount' | 'blockSize'> {
  const { path } = file;
  const { blockSize, maxTableEntries } = fields;
  if (blockSize < SECTOR_SIZE || !Number.isInteger(Math.log2(blockSize))) {
    throw damaged(path, `block size ${blockSize}, allowed are powers of two from ${SECTOR_SIZE}`);
  }
  const blockCount = divCeil(footer.virtualSize, blockSize);
  if (maxTableEntries < blockCount) {
    throw damaged(
      path,
      `the block table has ${maxTableEntries} entries, ` +
        `${footer.virtualSize} bytes need ${blockCount}`,
    );
  }
  const tableOffset = safeNumber(fields.tableOffset, `${path}: offset of the block table`);
  const tableLength = maxTableEntries * BAT_ENTRY_SIZE;
  if (tableOffset + tableLength > file.size) {
    throw damaged(
      path,
      `the block table at ${tableOffset} (${tableLength} bytes) lies past the end of the file`,
    );
  }
  return { tableOffset, tableLength, blockCount, blockSize };
}
