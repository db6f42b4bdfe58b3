/**
 * The two copies of a delta's header: keeping them alike, so that the loss of either loses nothing.
 *
 * A commit writes the copy that is not in force and syncs it; then the other one is made to say the
 * same (`mirrorHeader`), without a sync of its own: the next commit overwrites that very copy, so
 * at any instant one copy with the last commit is durable.
 */
import { closeSync, readSync } from 'node:fs';
import { DiskError } from '../../common/errors.js';
import { hostError, orHostError, writeExact } from '../../storage/exact-io.js';
import { hostCalls } from '../../storage/host-calls.js';
import { openStored } from '../../storage/stored-file.js';
import type { DeltaId } from '../delta-id.js';
import type { DeltaFiles } from './delta-files.js';
import { readHeaderFrom } from './delta-header.js';
import {
  type DeltaHeader,
  decodeHeader,
  encodeHeader,
  HEADER_OFFSETS,
  HEADER_SIZE,
} from './delta-layout.js';
import { scanTuples } from './tuple-scan.js';

/** Of a delta that was made and never committed to. */
const FIRST_GENERATION = 1;
/** The copy that early stores did not write before. */
const WRITTEN_LATER = HEADER_OFFSETS[0];

/** No epoch has this name: only committed records count. */
export const NO_EPOCH = '';

/** Makes the other copy say the same. The caller has made the one in force durable. */
export function mirrorHeader(fd: number, inForce: DeltaHeader, label: string): void {
  const other = HEADER_OFFSETS[(inForce.generation + 1) % 2]!;
  writeExact(fd, encodeHeader(inForce), 0, HEADER_SIZE, other, label);
}

export interface HeaderCopy {
  /** In the tuple file. */
  readonly offset: number;
  /** Undefined when it is damaged, or was never written. */
  readonly header: DeltaHeader | undefined;
  /** Nothing was ever written there: early stores wrote this copy with the first commit. */
  readonly isUnused: boolean;
}

/** @throws DiskError `not-supported` for a newer version, `failed` when the host can't read. */
export function readCopies(fd: number, path: string, id: DeltaId): HeaderCopy[] {
  const copies = HEADER_OFFSETS.map((offset) => {
    const bytes = Buffer.alloc(HEADER_SIZE);
    try {
      readSync(fd, bytes, 0, HEADER_SIZE, offset);
    } catch (error) {
      throw hostError(`cannot read ${path}`, error);
    }
    const header = decodeHeader(bytes, path);
    const isBlank = bytes.every((byte) => byte === 0);
    return { offset, header: header?.id === id ? header : undefined, isBlank };
  });
  // Once there was a commit, zeroes are damage, too.
  const isNew = copies.some(({ header }) => header?.generation === FIRST_GENERATION);
  return copies.map(({ offset, header, isBlank }) => {
    return { offset, header, isUnused: isBlank && isNew && offset === WRITTEN_LATER };
  });
}

/** Whether two headers say the same, whichever is newer. */
function saySame(a: DeltaHeader, b: DeltaHeader): boolean {
  const same = { ...b, generation: a.generation };
  return encodeHeader(a).equals(encodeHeader(same));
}

/** The two as they were meant to be: intact and alike. */
export function areSettled([a, b]: readonly HeaderCopy[]): boolean {
  return a?.header !== undefined && b?.header !== undefined && saySame(a.header, b.header);
}

/**
 * Makes the copies of a sealed delta alike, durably: a power cut right after the sealing, or an
 * older layerdisk, left them different. Leaves them as they are while a record of the last commit
 * does not verify: only the older copy tells that it may be torn.
 *
 * Another thread may change what the delta stands on meanwhile (`DeltaFiles.changeBelow`, which
 * writes both copies): so what was written is read again until it is settled.
 */
export function settleCopies(files: DeltaFiles, id: DeltaId): void {
  orHostError(`cannot settle the header of delta ${id}`, () => settle(files, id));
}

function settle(files: DeltaFiles, id: DeltaId): void {
  const path = files.tuplesPath(id);
  const fd = openStored(path, 'r+');
  try {
    for (;;) {
      const found = readCopies(fd, path, id);
      if (areSettled(found)) break;
      const copies = readHeaderFrom(fd, path, id);
      const { current } = copies;
      const { torn } = scanTuples(fd, path, copies, NO_EPOCH, () => {});
      if (torn.length > 0) return;
      // A mirror of a damaged copy is in force itself: its generation does not tell which is which.
      const other = found.find(({ header }) => header === undefined || !saySame(header, current));
      if (other === undefined) continue;
      writeExact(fd, encodeHeader(current), 0, HEADER_SIZE, other.offset, 'copies.mirror');
    }
    hostCalls.syncData(fd, 'copies.sync');
  } finally {
    closeSync(fd);
  }
}

/**
 * Writes a damaged copy anew from the intact one, durably.
 * @returns whether there was anything to do. @throws DiskError `damaged` when both are.
 */
export function repairCopies(files: DeltaFiles, id: DeltaId): boolean {
  return orHostError(`cannot repair the header of delta ${id}`, () => repair(files, id));
}

function repair(files: DeltaFiles, id: DeltaId): boolean {
  const path = files.tuplesPath(id);
  const fd = openStored(path, 'r+');
  try {
    const copies = readCopies(fd, path, id);
    const [good, ...others] = copies.filter((copy) => copy.header !== undefined);
    if (good?.header === undefined) {
      throw new DiskError('damaged', `${path}: both header copies of the delta are damaged`);
    }
    const bad = copies.find((copy) => copy.header === undefined);
    if (others.length > 0 || bad === undefined) return false;
    writeExact(fd, encodeHeader(good.header), 0, HEADER_SIZE, bad.offset, 'copies.repair');
    hostCalls.syncData(fd, 'copies.sync');
    return true;
  } finally {
    closeSync(fd);
  }
}
