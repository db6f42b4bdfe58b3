/** Reads qcow2 images, versions 2 and 3, with data files and internal snapshots. */
import { invariant } from '../../common/assert.js';
import { SECTOR_SIZE } from '../../common/units.js';
import type {
  DiskImage,
  Extent,
  ExtentLocation,
  ExtentState,
  ImageInfo,
  InternalSnapshot,
  ParentReference,
} from '../../engine/disk-image.js';
import { type FileWindow, HostFile, type ReadableFile } from '../../storage/host-file.js';
import { fileState } from '../../storage/host-path.js';
import { infoOf } from '../count-data.js';
import { damaged, notAlone } from '../image-error.js';
import type { ImageOptions } from '../image-options.js';
import { quoteName, resolveSibling } from '../sibling-path.js';
import {
  ClusterMap,
  COMPRESSED,
  type CompressedPlace,
  DAMAGED,
  UNALLOCATED,
  ZERO,
} from './cluster-map.js';
import { CompressedClusters } from './compressed-clusters.js';
import { OwnClusters } from './own-clusters.js';
import { checkL1, hasQcow2Magic, type Qcow2Header, readQcow2Header } from './qcow2-header.js';
import { findSnapshot, readSnapshotTable, type StoredSnapshot } from './snapshot-table.js';

/** Units that one `extentAt` looks at most: a run may be told in parts, a call stays short. */
const MAX_RUN_UNITS = 8_192;
/** QEMU's driver names that are called otherwise here; `file` shows a file as it is. */
const FORMAT_ALIASES: Readonly<Record<string, string>> = { vpc: 'vhd', file: 'raw' };

/** Whether the file that begins with `header` says that it is qcow2. */
export function probeQcow2(header: Buffer): boolean {
  return hasQcow2Magic(header);
}

/**
 * Opens a qcow2 image read-only, with its external data file if it has one.
 * @throws DiskError `damaged`, `not-supported`, `not-found` (snapshot, data file), `not-permitted`
 *   (a data file that `resolveSibling` refuses), and what `HostFile.open` throws.
 */
export function openQcow2(path: string, options: ImageOptions = {}): DiskImage {
  const opened: HostFile[] = [];
  try {
    const image = openInto(opened, path, options.window);
    const header = readQcow2Header(image);
    let data = image;
    if (header.externalData && header.dataFileName !== undefined) {
      if (options.window !== undefined) throw notAlone(path, 'a data file');
      data = openInto(opened, resolveSibling(path, header.dataFileName, options.allowFolders));
      checkDistinct(image, data);
    }
    return new Qcow2Image({ image, data }, header, options.snapshot);
  } catch (error) {
    for (const file of opened) file.close();
    throw error;
  }
}

/**
 * INVARIANT: a byte is read only from where an entry that `ClusterMap` found sound says, and fails
 * with EIO otherwise.
 */
export class Qcow2Image implements DiskImage {
  readonly format = 'qcow2';
  readonly path: string;
  readonly files: readonly string[];
  readonly virtualSize: number;
  readonly parent: ParentReference | undefined;
  readonly internalSnapshots: readonly InternalSnapshot[];
  readonly #image: ReadableFile;
  readonly #data: ReadableFile;
  readonly #header: Qcow2Header;
  readonly #shown: StoredSnapshot | undefined;
  readonly #map: ClusterMap;
  readonly #compressed: CompressedClusters;
  readonly #unitSize: number;
  readonly #place: CompressedPlace = { offset: 0, length: 0 };

  /** @param snapshot name or id of an internal snapshot; undefined = the current state. */
  constructor(
    files: { readonly image: ReadableFile; readonly data: ReadableFile },
    header: Qcow2Header,
    snapshot?: string,
  ) {
    const { image, data } = files;
    const table = readSnapshotTable(image, header);
    const own = new OwnClusters(image, header, table);
    this.path = image.path;
    this.files = data === image ? [image.path] : [image.path, data.path];
    this.#image = image;
    this.#data = data;
    this.#header = header;
    this.internalSnapshots = table.snapshots;
    this.#shown =
      snapshot === undefined ? undefined : findSnapshot(image.path, table.snapshots, snapshot);
    this.virtualSize = this.#shown?.virtualSize ?? header.virtualSize;
    const l1 =
      this.#shown === undefined
        ? header.l1
        : checkL1(
            image,
            { ...header, virtualSize: this.virtualSize },
            this.#shown.l1TableOffset,
            this.#shown.l1Size,
          );
    this.#map = new ClusterMap(files, header, l1, own);
    this.#unitSize = this.#map.unitSize;
    this.#compressed = new CompressedClusters(image, header.clusterSize, header.compression);
    this.parent = parentOf(header);
  }

  info(): ImageInfo {
    const header = this.#header;
    const shown = this.#shown;
    const traits = [
      `version ${header.version}`,
      ...(header.compression === 'zstd' ? ['zstd'] : []),
      ...(header.extendedL2 ? ['extended L2'] : []),
      ...(header.externalData ? ['external data file'] : []),
    ];
    return infoOf(this, {
      format: 'qcow2',
      subformat: traits.join(', '),
      virtualSize: this.virtualSize,
      unitSize: header.clusterSize,
      logicalSectorSize: SECTOR_SIZE,
      identity: {},
      notes: [
        ...header.notes,
        ...(shown === undefined ? [] : [`shows the internal snapshot ${quoteName(shown.name)}`]),
      ],
    });
  }

  /** Damaged ranges are `data`: reading them is what fails. */
  extentAt(offset: number, length: number, out: Extent): void {
    const map = this.#map;
    const unitSize = this.#unitSize;
    const end = offset + length;
    const first = Math.floor(offset / unitSize);
    const state = stateOf(map.find(first));
    let runEnd = (first + 1) * unitSize;
    if (state === 'unallocated') runEnd = this.#skipAbsent(runEnd, end);
    for (let looked = 1; runEnd < end && looked < MAX_RUN_UNITS; looked += 1) {
      if (stateOf(map.find(runEnd / unitSize)) !== state) break;
      runEnd += unitSize;
      if (state === 'unallocated') runEnd = this.#skipAbsent(runEnd, end);
    }
    out.state = state;
    out.length = Math.min(runEnd, end) - offset;
  }

  readAt(target: Buffer, targetOffset: number, offset: number, length: number): void {
    const unitSize = this.#unitSize;
    let done = 0;
    while (done < length) {
      const at = offset + done;
      const unit = Math.floor(at / unitSize);
      const inUnit = at - unit * unitSize;
      const found = this.#map.find(unit);
      const start = targetOffset + done;
      let count = Math.min(unitSize - inUnit, length - done);
      if (found >= 0) {
        count = this.#plainRun(unit, found, inUnit, length - done);
        this.#data.readExact(target, start, count, found + inUnit);
      } else if (found === ZERO) {
        target.fill(0, start, start + count);
      } else if (found === COMPRESSED) {
        this.#readCompressed(target, start, at, count);
      } else if (found === DAMAGED) {
        throw damaged(this.path, `the table entry for disk offset ${at} is damaged`);
      } else {
        invariant(false, `read of unallocated qcow2 cluster at ${at}`);
      }
      done += count;
    }
  }

  locate(offset: number): ExtentLocation | undefined {
    const unit = Math.floor(offset / this.#unitSize);
    const found = this.#map.find(unit);
    const inUnit = offset - unit * this.#unitSize;
    const left = this.#unitSize - inUnit;
    if (found === COMPRESSED) return { file: this.path, length: left, compressed: true };
    if (found < 0) return undefined;
    const { path: file, size } = this.#data;
    const start = found + inUnit;
    const length = Math.min(left, size - start);
    return length <= 0 ? undefined : { file, offset: start, length };
  }

  close(): void {
    this.#image.close();
    if (this.#data !== this.#image) this.#data.close();
  }

  /**
   * End of the unallocated stretch that goes on at `from`, as far as whole L2 tables are absent.
   */
  #skipAbsent(from: number, end: number): number {
    const { tableSpan } = this.#map;
    let at = from;
    while (at < end && this.#map.tableIsAbsent(at))
      at = (Math.floor(at / tableSpan) + 1) * tableSpan;
    return at;
  }

  /** Bytes from `inUnit` on, at most `length`, that lie in one piece in the data file. */
  #plainRun(unit: number, found: number, inUnit: number, length: number): number {
    const unitSize = this.#unitSize;
    let run = unitSize - inUnit;
    for (let next = 1; run < length; next += 1) {
      if (this.#map.find(unit + next) !== found + next * unitSize) break;
      run += unitSize;
    }
    return Math.min(run, length);
  }

  #readCompressed(target: Buffer, start: number, at: number, count: number): void {
    const { clusterSize } = this.#header;
    this.#map.compressedPlace(Math.floor(at / this.#unitSize), this.#place);
    const cluster = Math.floor(at / clusterSize);
    const unpacked = this.#compressed.read(cluster, this.#place);
    const inCluster = at - cluster * clusterSize;
    target.set(unpacked.subarray(inCluster, inCluster + count), start);
  }
}

function openInto(opened: HostFile[], path: string, window?: FileWindow): HostFile {
  const file = HostFile.open(path, window);
  opened.push(file);
  return file;
}

function checkDistinct(image: HostFile, data: HostFile): void {
  const one = fileState(image.path);
  const other = fileState(data.path);
  if (one.device === other.device && one.inode === other.inode) {
    throw damaged(image.path, `names itself as its external data file (${quoteName(data.path)})`);
  }
}

function stateOf(found: number): ExtentState {
  if (found === UNALLOCATED) return 'unallocated';
  return found === ZERO ? 'zero' : 'data';
}

/** A backing file has no identity that could be compared. */
function parentOf(header: Qcow2Header): ParentReference | undefined {
  const { backingName, backingFormat } = header;
  if (backingName === undefined) return undefined;
  const format = backingFormat === undefined ? undefined : FORMAT_ALIASES[backingFormat];
  return {
    names: [backingName],
    ...(backingFormat === undefined ? {} : { format: format ?? backingFormat }),
    mismatch: () => undefined,
  };
}
