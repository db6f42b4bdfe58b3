/**
 * Writes a hosted sparse extent: header, descriptor, all tables twice, then grains as they come.
 */
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
  TABLE_SECTORS,
  tableCount,
  WRITTEN_ENTRIES_PER_TABLE,
  WRITTEN_GRAIN_SIZE,
} from './grain-table-writer.js';
import {
  COMPRESSION_NONE,
  FLAG_NEWLINE_TEST,
  FLAG_REDUNDANT_TABLE,
  FLAG_ZEROED_GRAINS,
  GTE_ZEROED,
  NEWLINE_TEST,
  SPARSE_HEADER,
  SPARSE_MAGIC,
} from './sparse-layout.js';

/** Directories are written in pieces: that of 64 TiB has 8 MiB. */
const DIRECTORY_PIECE = 16 * 1024;

export interface SparseExtentOptions {
  /** Bytes of the disk in this extent, whole sectors. */
  readonly length: number;
  /** Whole sectors, embedded behind the header; absent where a file of its own holds it. */
  readonly descriptor?: Buffer;
  /** Whether grains that hide a parent's data occur: those need version 2. */
  readonly zeroedGrains: boolean;
}

/** Sectors at which the parts of the file begin. */
interface Layout {
  readonly redundantDirectory: number;
  readonly directory: number;
  /** The first grain. */
  readonly overhead: number;
}

/**
 * INVARIANT: every directory entry leads to a table, as VMware and QEMU leave it; tables without a
 * grain are holes of the file. Grains follow each other in the order of the disk.
 */
export class SparseExtentWriter implements ExtentWriter {
  readonly #file: OutputFile;
  readonly #options: SparseExtentOptions;
  readonly #tableCount: number;
  readonly #layout: Layout;
  readonly #tables: GrainTableWriter;
  /** Sector of the next grain. */
  #next: number;

  constructor(file: OutputFile, options: SparseExtentOptions) {
    this.#file = file;
    this.#options = options;
    this.#tableCount = tableCount(options.length);
    this.#layout = layoutOf(this.#tableCount, options.descriptor?.length ?? 0);
    this.#next = this.#layout.overhead;
    this.#tables = new GrainTableWriter((table, bytes) => {
      for (const directory of [this.#layout.redundantDirectory, this.#layout.directory]) {
        const position = this.#tableSector(directory, table) * SECTOR_SIZE;
        this.#file.write(bytes, 0, bytes.length, position);
      }
    });
  }

  write(offset: number, source: Buffer, sourceOffset: number, length: number): undefined {
    invariant(offset % WRITTEN_GRAIN_SIZE === 0, `VMDK grain at ${offset}`);
    const first = offset / WRITTEN_GRAIN_SIZE;
    const count = Math.ceil(length / WRITTEN_GRAIN_SIZE);
    const start = this.#next;
    checkSector(this.#file.path, start + count * GRAIN_SECTORS);
    this.#file.write(source, sourceOffset, length, start * SECTOR_SIZE);
    for (let index = 0; index < count; index += 1) {
      this.#tables.set(first + index, start + index * GRAIN_SECTORS);
    }
    this.#next = start + count * GRAIN_SECTORS;
  }

  zero(offset: number, length: number): void {
    invariant(this.#options.zeroedGrains, 'zeroed VMDK grains without a parent');
    const first = offset / WRITTEN_GRAIN_SIZE;
    const count = Math.ceil(length / WRITTEN_GRAIN_SIZE);
    for (let index = 0; index < count; index += 1) this.#tables.set(first + index, GTE_ZEROED);
  }

  finish(): void {
    const { redundantDirectory, directory } = this.#layout;
    this.#tables.flush();
    this.#writeDirectory(redundantDirectory);
    this.#writeDirectory(directory);
    // The last grain may be cut short by the disk's end, in the file it is whole.
    this.#file.truncate(this.#next * SECTOR_SIZE);
    const { descriptor } = this.#options;
    if (descriptor !== undefined) {
      this.#file.write(descriptor, 0, descriptor.length, SECTOR_SIZE);
    }
    this.#file.write(this.#header(), 0, SPARSE_HEADER.size, 0);
  }

  #header(): Buffer {
    const { length, descriptor, zeroedGrains } = this.#options;
    const { redundantDirectory, directory, overhead } = this.#layout;
    const flags = FLAG_NEWLINE_TEST | FLAG_REDUNDANT_TABLE;
    return SPARSE_HEADER.encode({
      magic: SPARSE_MAGIC,
      version: zeroedGrains ? 2 : 1,
      flags: zeroedGrains ? flags | FLAG_ZEROED_GRAINS : flags,
      capacity: BigInt(length / SECTOR_SIZE),
      grainSize: BigInt(GRAIN_SECTORS),
      descriptorOffset: descriptor === undefined ? 0n : 1n,
      descriptorSize: BigInt((descriptor?.length ?? 0) / SECTOR_SIZE),
      entriesPerTable: WRITTEN_ENTRIES_PER_TABLE,
      redundantDirectory: BigInt(redundantDirectory),
      directory: BigInt(directory),
      overhead: BigInt(overhead),
      newlineTest: NEWLINE_TEST,
      compression: COMPRESSION_NONE,
    });
  }

  #tableSector(directory: number, table: number): number {
    return directory + directorySectors(this.#tableCount) + table * TABLE_SECTORS;
  }

  #writeDirectory(directory: number): void {
    const piece = Buffer.alloc(Math.min(DIRECTORY_PIECE, this.#tableCount) * ENTRY_SIZE);
    for (let first = 0; first < this.#tableCount; first += DIRECTORY_PIECE) {
      const count = Math.min(DIRECTORY_PIECE, this.#tableCount - first);
      for (let index = 0; index < count; index += 1) {
        piece.writeUInt32LE(this.#tableSector(directory, first + index), index * ENTRY_SIZE);
      }
      const position = directory * SECTOR_SIZE + first * ENTRY_SIZE;
      this.#file.write(piece, 0, count * ENTRY_SIZE, position);
    }
  }
}

function layoutOf(tables: number, descriptorSize: number): Layout {
  const redundantDirectory = 1 + descriptorSize / SECTOR_SIZE;
  const size = directorySectors(tables) + tables * TABLE_SECTORS;
  const directory = redundantDirectory + size;
  return {
    redundantDirectory,
    directory,
    overhead: alignUp(directory + size, GRAIN_SECTORS),
  };
}
