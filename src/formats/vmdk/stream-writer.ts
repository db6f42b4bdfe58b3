/** Writes stream-optimized extents: packed grains behind markers, tables behind their grains. */
import { promisify } from 'node:util';
import { deflate } from 'node:zlib';
import { invariant } from '../../common/assert.js';
import { alignUp, SECTOR_SIZE } from '../../common/units.js';
import type { OutputFile } from '../../storage/output-files.js';
import { ENTRY_SIZE } from '../entry-table.js';
import type { ExtentWriter } from './extent-writer.js';
import {
  checkSector,
  directorySectors,
  GRAIN_SECTORS,
  GrainTableWriter,
  tableCount,
  WRITTEN_ENTRIES_PER_TABLE,
  WRITTEN_GRAIN_SIZE,
} from './grain-table-writer.js';
import {
  COMPRESSION_DEFLATE,
  FLAG_COMPRESSED,
  FLAG_MARKERS,
  FLAG_NEWLINE_TEST,
  GD_AT_END,
  GRAIN_MARKER,
  MARKER_DIRECTORY,
  MARKER_END_OF_STREAM,
  MARKER_FOOTER,
  MARKER_TABLE,
  METADATA_MARKER,
  NEWLINE_TEST,
  SPARSE_HEADER,
  SPARSE_MAGIC,
} from './sparse-layout.js';

/** As VMware's and VirtualBox's exports state. */
const STREAM_VERSION = 3;
/** What zlib makes of a grain that does not shrink still fits into one piece. */
const DEFLATE_OPTIONS = { chunkSize: WRITTEN_GRAIN_SIZE + 1024 };

const pack = promisify<Buffer, typeof DEFLATE_OPTIONS, Buffer>(deflate);

/**
 * INVARIANT: the file is written from front to back, the header aside; a table stands behind the
 * grains that it is about, and a table without grains is not there.
 */
export class StreamWriter implements ExtentWriter {
  readonly #file: OutputFile;
  readonly #length: number;
  readonly #descriptor: Buffer;
  readonly #directory: Buffer;
  readonly #tables: GrainTableWriter;
  /** Sector at which the file goes on. */
  #next = GRAIN_SECTORS;

  /** @param descriptor whole sectors, less than a grain. */
  constructor(file: OutputFile, options: { length: number; descriptor: Buffer }) {
    const { length, descriptor } = options;
    invariant(descriptor.length + SECTOR_SIZE <= WRITTEN_GRAIN_SIZE, 'VMDK descriptor too long');
    this.#file = file;
    this.#length = length;
    this.#descriptor = descriptor;
    this.#directory = Buffer.alloc(directorySectors(tableCount(length)) * SECTOR_SIZE);
    this.#tables = new GrainTableWriter((table, bytes) => {
      const sector = this.#appendMetadata(MARKER_TABLE, bytes);
      this.#directory.writeUInt32LE(sector, table * ENTRY_SIZE);
    });
  }

  async write(offset: number, source: Buffer, start: number, length: number): Promise<void> {
    invariant(offset % WRITTEN_GRAIN_SIZE === 0, `VMDK grain at ${offset}`);
    const first = offset / WRITTEN_GRAIN_SIZE;
    const packing: Promise<Buffer>[] = [];
    for (let done = 0; done < length; done += WRITTEN_GRAIN_SIZE) {
      const end = start + Math.min(done + WRITTEN_GRAIN_SIZE, length);
      packing.push(pack(wholeGrain(source.subarray(start + done, end)), DEFLATE_OPTIONS));
    }
    this.#appendGrains(first, await Promise.all(packing));
  }

  zero(): void {
    invariant(false, 'zeroed grains in a stream-optimized VMDK');
  }

  finish(): void {
    this.#tables.flush();
    const directory = this.#appendMetadata(MARKER_DIRECTORY, this.#directory);
    this.#appendMetadata(MARKER_FOOTER, this.#header(BigInt(directory)));
    this.#append(METADATA_MARKER.encode({ type: MARKER_END_OF_STREAM }));
    this.#file.write(this.#descriptor, 0, this.#descriptor.length, SECTOR_SIZE);
    this.#file.write(this.#header(GD_AT_END), 0, SPARSE_HEADER.size, 0);
  }

  #appendGrains(first: number, grains: readonly Buffer[]): void {
    // A table that is complete comes before the grains of the next one.
    this.#tables.enter(first);
    const size = (grain: Buffer) => alignUp(GRAIN_MARKER.size + grain.length, SECTOR_SIZE);
    const bytes = Buffer.alloc(grains.reduce((sum, grain) => sum + size(grain), 0));
    checkSector(this.#file.path, this.#next + bytes.length / SECTOR_SIZE);
    let at = 0;
    for (const [index, grain] of grains.entries()) {
      const sector = BigInt((first + index) * GRAIN_SECTORS);
      GRAIN_MARKER.write(bytes, at, { sector, size: grain.length });
      grain.copy(bytes, at + GRAIN_MARKER.size);
      this.#tables.set(first + index, this.#next + at / SECTOR_SIZE);
      at += size(grain);
    }
    this.#append(bytes);
  }

  /** A marker and what it announces; answers the sector of the latter. */
  #appendMetadata(type: number, bytes: Buffer): number {
    const sectors = bytes.length / SECTOR_SIZE;
    checkSector(this.#file.path, this.#next + 1 + sectors);
    this.#append(METADATA_MARKER.encode({ sectors: BigInt(sectors), size: 0, type }));
    const sector = this.#next;
    this.#append(bytes);
    return sector;
  }

  #append(bytes: Buffer): void {
    this.#file.write(bytes, 0, bytes.length, this.#next * SECTOR_SIZE);
    this.#next += bytes.length / SECTOR_SIZE;
  }

  #header(directory: bigint): Buffer {
    return SPARSE_HEADER.encode({
      magic: SPARSE_MAGIC,
      version: STREAM_VERSION,
      flags: FLAG_NEWLINE_TEST | FLAG_COMPRESSED | FLAG_MARKERS,
      capacity: BigInt(this.#length / SECTOR_SIZE),
      grainSize: BigInt(GRAIN_SECTORS),
      descriptorOffset: 1n,
      descriptorSize: BigInt(this.#descriptor.length / SECTOR_SIZE),
      entriesPerTable: WRITTEN_ENTRIES_PER_TABLE,
      directory,
      overhead: BigInt(GRAIN_SECTORS),
      newlineTest: NEWLINE_TEST,
      compression: COMPRESSION_DEFLATE,
    });
  }
}

/** Readers expect the size of a grain even of the last one, which the disk's end may cut. */
function wholeGrain(bytes: Buffer): Buffer {
  if (bytes.length === WRITTEN_GRAIN_SIZE) return bytes;
  const whole = Buffer.alloc(WRITTEN_GRAIN_SIZE);
  bytes.copy(whole);
  return whole;
}
