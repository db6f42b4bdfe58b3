/** Reads the fixed places of a VHDX: who made it, and the newer of its two headers. */
import { crc32cWithoutField } from '../../common/checksum.js';
import { safeNumber } from '../../common/units.js';
import { NIL_UUID, type Uuid } from '../../common/uuid.js';
import type { ReadableFile } from '../../storage/host-file.js';
import { damaged, unsupported } from '../image-error.js';
import {
  ALIGNMENT,
  CHECKSUM_OFFSET,
  FILE_IDENTIFIER,
  FILE_SIGNATURE,
  HEADER,
  HEADER_AREA_SIZE,
  HEADER_OFFSETS,
  HEADER_SIGNATURE,
  HEADER_SIZE,
  LOG_VERSION,
  VERSION,
} from './vhdx-layout.js';

export interface VhdxHeader {
  readonly creator: string;
  readonly fileWriteGuid: Uuid;
  readonly dataWriteGuid: Uuid;
  /** Nil when the log is empty. */
  readonly logGuid: Uuid;
  readonly logOffset: number;
  readonly logLength: number;
  readonly notes: readonly string[];
}

type Fields = ReturnType<typeof HEADER.decode>;

/** Whether a file that begins with these bytes says that it is a VHDX. */
export function hasVhdxSignature(header: Buffer): boolean {
  return header.toString('latin1', 0, FILE_SIGNATURE.length) === FILE_SIGNATURE;
}

/** @throws DiskError `damaged` when no header can be used, `not-supported` for another version. */
export function readVhdxHeader(file: ReadableFile): VhdxHeader {
  const { path } = file;
  if (file.size < HEADER_AREA_SIZE) {
    throw damaged(path, `only ${file.size} bytes long: the header area is cut off`);
  }
  const identifier = Buffer.alloc(FILE_IDENTIFIER.size);
  file.readExact(identifier, 0, identifier.length, 0);
  if (!hasVhdxSignature(identifier))
    throw damaged(path, 'not a VHDX image (no vhdxfile signature)');
  const notes: string[] = [];
  const fields = chooseHeader(path, [readHeader(file, 0), readHeader(file, 1)], notes);
  if (fields.version !== VERSION) {
    throw unsupported(path, `VHDX version ${fields.version} is not supported, only ${VERSION}`);
  }
  return {
    creator: utf16(FILE_IDENTIFIER.decode(identifier).creator),
    fileWriteGuid: fields.fileWriteGuid,
    dataWriteGuid: fields.dataWriteGuid,
    logGuid: fields.logGuid,
    ...checkLog(file, fields),
    notes,
  };
}

/** Undefined when the header is damaged. */
function readHeader(file: ReadableFile, index: 0 | 1): Fields | undefined {
  const bytes = Buffer.alloc(HEADER_SIZE);
  file.readExact(bytes, 0, bytes.length, HEADER_OFFSETS[index]);
  const fields = HEADER.decode(bytes);
  const sound =
    fields.signature === HEADER_SIGNATURE &&
    fields.checksum === crc32cWithoutField(bytes, CHECKSUM_OFFSET);
  return sound ? fields : undefined;
}

/** The one with the higher sequence number; some tools write both with the same one. */
function chooseHeader(
  path: string,
  [first, second]: readonly [Fields | undefined, Fields | undefined],
  notes: string[],
): Fields {
  if (first !== undefined && second !== undefined) {
    return second.sequenceNumber > first.sequenceNumber ? second : first;
  }
  const left = first ?? second;
  if (left === undefined) throw damaged(path, 'both VHDX headers are damaged (checksum)');
  notes.push(`header ${first === undefined ? 1 : 2} of 2 is damaged; the other one was used`);
  return left;
}

function checkLog(file: ReadableFile, fields: Fields): { logOffset: number; logLength: number } {
  const { path } = file;
  const logOffset = safeNumber(fields.logOffset, `${path}: offset of the log`);
  const { logLength } = fields;
  // Where there is nothing to replay, nothing is written in that version ([MS-VHDX] 2.2.2).
  if (fields.logVersion !== LOG_VERSION && fields.logGuid !== NIL_UUID) {
    throw unsupported(path, `VHDX log version ${fields.logVersion} is not supported, only 0`);
  }
  if (logLength % ALIGNMENT !== 0 || logOffset % ALIGNMENT !== 0) {
    throw damaged(path, `log at ${logOffset} of ${logLength} bytes is not aligned to 1 MiB`);
  }
  if (logLength > 0 && (logOffset < HEADER_AREA_SIZE || logOffset + logLength > file.size)) {
    throw damaged(path, `log at ${logOffset} of ${logLength} bytes does not lie in the file`);
  }
  return { logOffset, logLength };
}

/** UTF-16 text up to its end mark, without control characters. */
function utf16(bytes: Buffer): string {
  return bytes.toString('utf16le').split('\0', 1)[0]!.replace(/\p{C}/gu, '?').trim();
}
