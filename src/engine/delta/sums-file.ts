/**
 * Writing and reading the checksums of a sealed delta. A sums file appears whole or not at all:
 * written under another name, synced, renamed.
 */
import { closeSync, existsSync, fstatSync, readSync } from 'node:fs';
import { DiskError, errnoName } from '../../common/errors.js';
import { divCeil } from '../../common/units.js';
import { hostError, orHostError, writeExact } from '../../storage/exact-io.js';
import { hostCalls } from '../../storage/host-calls.js';
import { openStored } from '../../storage/stored-file.js';
import type { DeltaId } from '../delta-id.js';
import type { DeltaFiles } from './delta-files.js';
import type { SlotSet } from './slot-set.js';
import {
  decodeSumsHeader,
  encodeSumsHeader,
  isSumsPage,
  NOT_COVERED,
  SUMS_PAGE,
  SUMS_PER_PAGE,
  type SumsHeader,
  sealSumsPage,
} from './sums-layout.js';

/** Where the page lies that has the checksum of a slot. */
export function sumsPageOffset(page: number): number {
  return SUMS_PAGE + page * SUMS_PAGE;
}

function pagesOf(slots: number): number {
  return divCeil(slots, SUMS_PER_PAGE);
}

/** A sums file in the making; slots come in ascending order, those left out are not covered. */
export class SumsWriter {
  readonly #files: DeltaFiles;
  readonly #header: SumsHeader;
  readonly #temporary: string;
  readonly #fd: number;
  readonly #page = Buffer.alloc(SUMS_PAGE);
  #index = 0;
  #open = true;

  /** @throws DiskError as the host says. */
  constructor(files: DeltaFiles, header: SumsHeader) {
    this.#files = files;
    this.#header = header;
    this.#temporary = `${files.sumsPath(header.id)}.new`;
    try {
      // One that a killed process left is written over.
      this.#fd = hostCalls.create(this.#temporary, 'w', 'sums.create');
    } catch (error) {
      throw hostError(`cannot make ${this.#temporary}`, error);
    }
  }

  put(slot: number, sum: number): void {
    const index = Math.floor(slot / SUMS_PER_PAGE);
    while (this.#index < index) this.#flush();
    this.#page.writeUInt32LE(sum, (slot % SUMS_PER_PAGE) * 4);
  }

  #flush(): void {
    sealSumsPage(this.#page, this.#header.id, this.#index);
    const offset = sumsPageOffset(this.#index);
    writeExact(this.#fd, this.#page, 0, SUMS_PAGE, offset, 'sums.write');
    this.#page.fill(0);
    this.#index += 1;
  }

  /** Makes the file durable and gives it its name. @throws DiskError; it is gone then. */
  finish(): void {
    try {
      while (this.#index < pagesOf(this.#header.slots)) this.#flush();
      writeExact(this.#fd, encodeSumsHeader(this.#header), 0, SUMS_PAGE, 0, 'sums.header');
      hostCalls.sync(this.#fd, 'sums.sync');
      this.#close();
      const path = this.#files.sumsPath(this.#header.id);
      hostCalls.rename(this.#temporary, path, 'sums.rename');
      this.#files.syncFolderNow();
    } catch (error) {
      this.abandon();
      const what = `cannot write the checksums of delta ${this.#header.id}`;
      throw hostError(what, error);
    }
  }

  abandon(): void {
    this.#close();
    try {
      hostCalls.unlink(this.#temporary, 'sums.abandon');
    } catch {
      // Named already, or the host is in trouble: garbage collection takes it.
    }
  }

  #close(): void {
    if (this.#open) closeSync(this.#fd);
    this.#open = false;
  }
}

export class SumsReader {
  readonly path: string;
  readonly header: SumsHeader;
  readonly #fd: number;
  readonly #page = Buffer.alloc(SUMS_PAGE);
  #loaded = -1;
  #intact = false;

  private constructor(path: string, fd: number, header: SumsHeader) {
    this.path = path;
    this.#fd = fd;
    this.header = header;
  }

  /**
   * @returns undefined when this generation of the delta's data has no checksums (yet).
   * @throws DiskError `damaged` when its header or its length is wrong.
   */
  static open(files: DeltaFiles, { id, dataGeneration }: DataName): SumsReader | undefined {
    const path = files.sumsPath(id);
    let fd: number;
    try {
      fd = openStored(path, 'r');
    } catch (error) {
      if (errnoName(error) === 'ENOENT') return undefined;
      throw hostError(`cannot open ${path}`, error);
    }
    let keep = false;
    try {
      const page = Buffer.alloc(SUMS_PAGE);
      orHostError(`cannot read ${path}`, () => readSync(fd, page, 0, SUMS_PAGE, 0));
      const header = decodeSumsHeader(page, path);
      if (header === undefined || header.id !== id) {
        throw damagedSums(path, 'the header of its checksums is damaged');
      }
      if (header.dataGeneration !== dataGeneration) return undefined;
      if (fstatSync(fd).size !== sumsPageOffset(pagesOf(header.slots))) {
        throw damagedSums(path, 'its checksums have the wrong length');
      }
      keep = true;
      return new SumsReader(path, fd, header);
    } finally {
      if (!keep) closeSync(fd);
    }
  }

  /** For who goes on with it alone, and closes it. */
  get descriptor(): number {
    return this.#fd;
  }

  get pages(): number {
    return pagesOf(this.header.slots);
  }

  /** Brings a page into memory. @returns whether it is intact. */
  load(page: number): boolean {
    if (page === this.#loaded) return this.#intact;
    this.#loaded = -1;
    try {
      const length = readSync(this.#fd, this.#page, 0, SUMS_PAGE, sumsPageOffset(page));
      this.#intact = length === SUMS_PAGE && isSumsPage(this.#page, this.header.id, page);
    } catch (error) {
      throw hostError(`cannot read ${this.path}`, error);
    }
    this.#loaded = page;
    return this.#intact;
  }

  /**
   * The checksum of a slot, `NOT_COVERED`, or undefined when the page that has it is damaged.
   */
  get(slot: number): number | undefined {
    if (slot >= this.header.slots) return NOT_COVERED;
    const page = Math.floor(slot / SUMS_PER_PAGE);
    if (!this.load(page)) return undefined;
    return this.#page.readUInt32LE((slot - page * SUMS_PER_PAGE) * 4);
  }

  close(): void {
    closeSync(this.#fd);
  }
}

/** Which data file the checksums must be of. */
export interface DataName {
  readonly id: DeltaId;
  readonly dataGeneration: number;
}

function damagedSums(path: string, what: string): DiskError {
  return new DiskError('damaged', `${path}: ${what}`, { errno: 'EIO' });
}

export function hasSums(files: DeltaFiles, id: DeltaId): boolean {
  return existsSync(files.sumsPath(id));
}

/**
 * Takes slots out of what a delta's checksums cover: durable when it returns, so that they may be
 * punched.
 * @returns false when the checksums are damaged: what they say must not be made to look right, so
 * they stay, and so must the slots.
 */
export function uncoverSlots(files: DeltaFiles, of: DataName, slots: SlotSet): boolean {
  let sums: SumsReader | undefined;
  try {
    sums = SumsReader.open(files, of);
  } catch (error) {
    if (error instanceof DiskError && error.code === 'damaged') return false;
    throw error;
  }
  if (sums === undefined) return true;
  try {
    return !coversAny(sums, slots) || copyWithout(files, sums, slots);
  } finally {
    sums.close();
  }
}

function coversAny(sums: SumsReader, slots: SlotSet): boolean {
  for (const { slot, count } of slots.runs(SUMS_PER_PAGE)) {
    for (let at = slot; at < slot + count; at += 1) {
      if (sums.get(at) !== NOT_COVERED) return true;
    }
  }
  return false;
}

/** @returns false, and changes nothing, when a page is damaged. */
function copyWithout(files: DeltaFiles, sums: SumsReader, slots: SlotSet): boolean {
  const writer = new SumsWriter(files, sums.header);
  for (let slot = 0; slot < sums.header.slots; slot += 1) {
    const sum = sums.get(slot);
    if (sum === undefined) {
      writer.abandon();
      return false;
    }
    if (sum !== NOT_COVERED && !slots.has(slot)) writer.put(slot, sum);
  }
  writer.finish();
  return true;
}
