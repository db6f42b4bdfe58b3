/** Opens the files that a VMDK descriptor names, under the rules for names found inside images. */
import { basename, isAbsolute, join } from 'node:path';
import { DiskError } from '../../common/errors.js';
import { SECTOR_SIZE } from '../../common/units.js';
import { type FileWindow, HostFile } from '../../storage/host-file.js';
import { notAlone } from '../image-error.js';
import type { ImageOptions } from '../image-options.js';
import { quoteName, resolveSibling } from '../sibling-path.js';
import { baseName, posixSeparators } from '../windows-path.js';
import { type ExtentLine, SPARSE_KINDS } from './descriptor.js';
import { FlatExtent, type VmdkExtent, ZeroExtent } from './extent.js';
import { SeSparseExtent, seSparseGeometry } from './se-sparse-extent.js';
import { SESPARSE_MAGIC } from './se-sparse-layout.js';
import { SparseExtent } from './sparse-extent.js';
import { cowdGeometry, readSparseHeader, sparseGeometry } from './sparse-header.js';
import { COWD_MAGIC } from './sparse-layout.js';

/** Kinds of extents whose bytes are a file, from the stated sector on. */
const FLAT_KINDS = new Set(['FLAT', 'VMFS']);

/** A device of Windows, or of a Unix; files in memory are none. */
const DEVICE = /^(\\\\\.\\|\/dev\/(?!shm\/))/;
const CLONE = 'clone the disk to a type that is all files';

/** Opens each file once and owns all of them. */
export class ExtentOpener {
  readonly #path: string;
  readonly #allowFolders: readonly string[];
  /** Where in the main file the image lies; it must be all of it then. */
  readonly #window: FileWindow | undefined;
  /** Path -> open file, the main one first. */
  readonly #files = new Map<string, HostFile>();

  constructor(path: string, { allowFolders = [], window }: ImageOptions) {
    this.#path = path;
    this.#allowFolders = allowFolders;
    this.#window = window;
  }

  /** Paths of everything opened, main file first. */
  get paths(): string[] {
    return [...this.#files.keys()];
  }

  openMain(): HostFile {
    return this.#openFile(this.#path, this.#window);
  }

  /** @throws DiskError naming the descriptor and the extent. */
  open(line: ExtentLine): VmdkExtent {
    const { kind, sectors, access, file: name } = line;
    const length = sectors * SECTOR_SIZE;
    if (access === 'NOACCESS') {
      throw this.#refusal(`an extent without access (${kind})`, 'make the whole disk accessible');
    }
    if (kind === 'ZERO') return new ZeroExtent(length);
    if (!FLAT_KINDS.has(kind) && !SPARSE_KINDS.has(kind)) {
      // VMFSRDM, VMFSRAW and the like lead to a device of the machine that made them.
      throw this.#refusal(`an extent of type ${kind}`, CLONE);
    }
    if (name === undefined) {
      throw new DiskError('damaged', `${this.#path}: VMDK extent of type ${kind} without a file`);
    }
    if (DEVICE.test(name)) {
      // Raw disks of VMware Workstation and VirtualBox: of the host that they were made on.
      throw this.#refusal(`an extent that is a device (${quoteName(name)})`, CLONE);
    }
    if (this.#window !== undefined) throw notAlone(this.#path, 'an extent');
    const file = this.#openFile(this.#resolve(name));
    if (FLAT_KINDS.has(kind)) {
      return new FlatExtent(file, line.offsetSectors * SECTOR_SIZE, length);
    }
    return this.#openSparse(file, length);
  }

  closeAll(): void {
    for (const file of this.#files.values()) file.close();
    this.#files.clear();
  }

  /**
   * The file that the descriptor names. Disks are moved together with their extents: where it gives
   * a path of Windows, or an absolute one that leads nowhere, the file of that name beside the
   * descriptor, or in an allowed folder, is meant.
   */
  #resolve(name: string): string {
    try {
      return resolveSibling(this.#path, name, this.#allowFolders);
    } catch (error) {
      if (!(error instanceof DiskError)) throw error;
      const found = this.#otherPlaces(name, error).find((path) => this.#isUsable(path));
      if (found === undefined) throw error;
      return resolveSibling(this.#path, found, this.#allowFolders);
    }
  }

  #otherPlaces(name: string, { code }: DiskError): string[] {
    const isOfWindows = /^([A-Za-z]:[\\/]|\\)/.test(name);
    if (isOfWindows || (isAbsolute(name) && code === 'not-found')) {
      const bare = isOfWindows ? baseName(name) : basename(name);
      return [bare, ...this.#allowFolders.map((folder) => join(folder, bare))];
    }
    return name.includes('\\') ? [posixSeparators(name)] : [];
  }

  #isUsable(name: string): boolean {
    try {
      resolveSibling(this.#path, name, this.#allowFolders);
      return true;
    } catch (error) {
      if (error instanceof DiskError) return false;
      throw error;
    }
  }

  #openSparse(file: HostFile, length: number): VmdkExtent {
    const head = Buffer.alloc(8);
    file.readExact(head, 0, Math.min(head.length, file.size), 0);
    if (head.readBigUInt64LE(0) === SESPARSE_MAGIC) {
      const geometry = seSparseGeometry(file);
      this.#checkLength(file, length, geometry.length);
      return new SeSparseExtent(file, geometry, length);
    }
    const isCowd = head.readUInt32LE(0) === COWD_MAGIC;
    const geometry = isCowd ? cowdGeometry(file) : sparseGeometry(file, readSparseHeader(file));
    this.#checkLength(file, length, geometry.length);
    return new SparseExtent(file, geometry, length);
  }

  #checkLength(file: HostFile, stated: number, capacity: number): void {
    if (stated <= capacity) return;
    throw new DiskError(
      'damaged',
      `${this.#path}: VMDK extent ${file.path} holds ${capacity} bytes, ${stated} are expected`,
    );
  }

  #refusal(what: string, hint: string): DiskError {
    return new DiskError('not-supported', `${this.#path}: ${what} is not supported`, { hint });
  }

  #openFile(path: string, window?: FileWindow): HostFile {
    const known = this.#files.get(path);
    if (known !== undefined) return known;
    const file = HostFile.open(path, window);
    this.#files.set(path, file);
    return file;
  }
}
