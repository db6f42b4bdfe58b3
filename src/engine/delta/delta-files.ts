/**
 * The delta files of a store: names, creation, headers. The only file of the engine that knows
 * their paths.
 */
import { closeSync, existsSync, statSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { DiskError, errnoName } from '../../common/errors.js';
import { SharedRun, together } from '../../common/together.js';
import { BLOCK_SIZE, divCeil } from '../../common/units.js';
import { hostFiles } from '../../storage/atomic-write.js';
import { hostError, orHostError, writeExact } from '../../storage/exact-io.js';
import { syncFolderNow } from '../../storage/folder-sync.js';
import { hostCalls } from '../../storage/host-calls.js';
import { describeFile } from '../../storage/small-files.js';
import { preallocate } from '../../storage/sparse-space.js';
import { openStored } from '../../storage/stored-file.js';
import { type DeltaId, isDeltaId, newDeltaId } from '../delta-id.js';
import type { DeltaSpec } from '../engine.js';
import { type HeaderCopies, readHeaderFrom, readWhole, writeHeader } from './delta-header.js';
import {
  type DeltaHeader,
  encodeHeader,
  encodeRecords,
  HEADER_OFFSETS,
  MAX_SLOTS,
  RECORD_SIZE,
  RECORDS_OFFSET,
  staticRecords,
  type TupleRecord,
} from './delta-layout.js';

const TUPLES = '.tuples';
const DATA = '.data';
const SUMS = '.sums';

export class DeltaFiles {
  readonly folder: string;
  /** See storage/cache-epoch.ts; stamped into headers as they are written. */
  readonly epoch: string;
  /** Deltas of which nothing is left that an earlier process did not sync. */
  readonly #inherited = new Set<DeltaId>();
  /** Why what `inheritAhead` tried did not do. */
  readonly #notInherited = new Map<DeltaId, unknown>();

  readonly #folderSync: SharedRun;

  constructor(folder: string, epoch: string) {
    this.folder = folder;
    this.#folderSync = new SharedRun((label) => hostFiles.syncFolder(folder, label));
    this.epoch = epoch;
  }

  tuplesPath(id: DeltaId): string {
    return `${this.folder}/${id}${TUPLES}`;
  }

  dataPath(id: DeltaId, dataGeneration: number): string {
    return `${this.folder}/${id}.${dataGeneration}${DATA}`;
  }

  /** Checksums of a sealed delta's slots: see sums-layout.ts. */
  sumsPath(id: DeltaId): string {
    return join(this.folder, id + SUMS);
  }

  /**
   * Makes an empty delta; both files and their names are durable when it resolves.
   * @throws DiskError ENOSPC and others from the host, with nothing left behind.
   */
  async create(spec: DeltaSpec, id: DeltaId = newDeltaId()): Promise<DeltaHeader> {
    const blocks = divCeil(spec.virtualSize, BLOCK_SIZE);
    const fixed = spec.allocation === 'static';
    if (fixed && (blocks > MAX_SLOTS || spec.below.kind !== 'none')) {
      throw new DiskError('not-supported', 'a statically allocated disk is smaller than 16 TiB', {
        hint: 'use allocation=dynamic',
      });
    }
    const records = fixed ? staticRecords(id, blocks) : Buffer.alloc(0);
    const header: DeltaHeader = {
      id,
      below: spec.below,
      virtualSize: spec.virtualSize,
      allocation: spec.allocation,
      sealed: false,
      dataGeneration: 1,
      generation: 1,
      committedRecords: records.length / RECORD_SIZE,
      mappedBlocks: fixed ? blocks : this.mappedBelow(spec),
      cacheEpoch: this.epoch,
    };
    try {
      await this.#writeData(header, fixed ? blocks * BLOCK_SIZE : 0);
      await this.#writeTuples(header, records);
    } catch (error) {
      this.#discard(header);
      throw hostError(`cannot make delta ${id}`, error);
    }
    this.#inherited.add(id);
    return header;
  }

  /**
   * Makes a sealed delta: `fill` writes its data file and answers the records of it. Durable when
   * it resolves.
   * @throws DiskError from the host, with nothing left behind.
   */
  async createSealed(
    like: Pick<DeltaHeader, 'id' | 'below' | 'virtualSize' | 'allocation' | 'mappedBlocks'>,
    fill: (dataFd: number) => Promise<readonly TupleRecord[]>,
  ): Promise<void> {
    const { id } = like;
    const partial = { ...like, dataGeneration: 1 };
    try {
      const data = hostCalls.create(this.dataPath(id, 1), 'wx+', 'delta.create-data');
      let records: readonly TupleRecord[];
      try {
        records = await fill(data);
        await hostCalls.syncLater(data, 'delta.sync-data');
      } finally {
        closeSync(data);
      }
      const header: DeltaHeader = {
        ...partial,
        sealed: true,
        generation: 1,
        committedRecords: records.length,
        cacheEpoch: this.epoch,
      };
      await this.#writeTuples(header, encodeRecords(id, records));
    } catch (error) {
      this.#discard(partial);
      throw hostError(`cannot make delta ${id}`, error);
    }
  }

  /**
   * Lets a delta stand on another one that shows the same. Both header copies say so when it
   * returns, durably: the spoiling of one must not lead back to what is no longer there.
   * @throws DiskError from the host. Either may be in force after a power cut then, and both have
   * to stay (`otherBelow`) until it is done again.
   */
  changeBelow(id: DeltaId, below: DeltaId): void {
    const what = `cannot change the header of delta ${id}`;
    orHostError(what, () => this.#changeBelow(id, below));
  }

  #changeBelow(id: DeltaId, below: DeltaId): void {
    const path = this.tuplesPath(id);
    const fd = openStored(path, 'r+');
    try {
      for (let copy = 0; copy < HEADER_OFFSETS.length; copy += 1) {
        const { current } = readHeaderFrom(fd, path, id);
        writeHeader(fd, { ...current, below: { kind: 'delta', id: below } }, 'below.header');
        hostCalls.sync(fd, 'below.sync');
      }
    } finally {
      closeSync(fd);
    }
  }

  /**
   * Makes the tuples durable that an earlier process may have written and not synced before it
   * died: to this one they look committed. @throws DiskError from the host.
   */
  inherit(id: DeltaId): void {
    if (this.#inherited.has(id)) return;
    const failure = this.#notInherited.get(id);
    this.#notInherited.delete(id);
    if (failure !== undefined) throw hostError(`cannot make delta ${id} durable`, failure);
    try {
      const fd = openStored(this.tuplesPath(id), 'r+');
      try {
        hostCalls.syncData(fd, 'inherit.sync-tuples');
      } finally {
        closeSync(fd);
      }
    } catch (error) {
      throw hostError(`cannot make delta ${id} durable`, error);
    }
    this.#inherited.add(id);
  }

  /**
   * `inherit` of many at the same time, which takes a host hardly longer than one, and on pool
   * threads. Never fails: `inherit` tells.
   */
  async inheritAhead(ids: Iterable<DeltaId>): Promise<void> {
    const sync = async (id: DeltaId): Promise<void> => {
      if (this.#inherited.has(id)) return;
      try {
        const fd = openStored(this.tuplesPath(id), 'r+');
        await hostCalls.syncDataLater(fd, 'inherit.sync-tuples').finally(() => closeSync(fd));
        this.#inherited.add(id);
        this.#notInherited.delete(id);
      } catch (error) {
        this.#notInherited.set(id, error);
      }
    };
    await Promise.all([...ids].map(sync));
  }

  /**
   * A sync of it failed: what its tuples say is durable may not be. Whoever uses it next makes it
   * so first, or gets the error.
   */
  distrust(id: DeltaId): void {
    this.#inherited.delete(id);
  }

  /** What the chain below a new delta maps, for the hint in its header. */
  mappedBelow(spec: DeltaSpec): number {
    return spec.below.kind === 'delta' ? this.readHeader(spec.below.id).current.mappedBlocks : 0;
  }

  async #writeData(header: DeltaHeader, allocate: number): Promise<void> {
    const path = this.dataPath(header.id, header.dataGeneration);
    const fd = hostCalls.create(path, 'wx', 'delta.create-data');
    try {
      if (allocate > 0) {
        preallocate(fd, allocate, 'delta.preallocate');
        await hostCalls.syncLater(fd, 'delta.sync-data');
      }
    } finally {
      closeSync(fd);
    }
  }

  /** The second of a delta's files: with it the names of both are made durable. */
  async #writeTuples(header: DeltaHeader, records: Buffer): Promise<void> {
    const fd = hostCalls.create(this.tuplesPath(header.id), 'wx', 'delta.create-tuples');
    try {
      const head = Buffer.alloc(RECORDS_OFFSET);
      // Both copies from the start: the loss of one is no loss.
      for (const at of HEADER_OFFSETS) encodeHeader(header).copy(head, at);
      const bytes = Buffer.concat([head, records]);
      writeExact(fd, bytes, 0, bytes.length, 0, 'delta.write-tuples');
      await together([
        hostCalls.syncLater(fd, 'delta.sync-tuples'),
        this.#folderSync.run('delta.sync-folder'),
      ]);
    } finally {
      closeSync(fd);
    }
  }

  #discard({ id, dataGeneration }: { id: DeltaId; dataGeneration: number }): void {
    this.#inherited.delete(id);
    const data = this.dataPath(id, dataGeneration);
    for (const path of [this.tuplesPath(id), data, this.sumsPath(id)]) {
      try {
        hostCalls.unlink(path, 'delta.discard');
      } catch {
        // Not made yet, or the host is in trouble: garbage collection takes it.
      }
    }
  }

  /** Removes a delta's files; what cannot be removed now is left to garbage collection. */
  remove(id: DeltaId): void {
    let dataGeneration = 1;
    try {
      dataGeneration = this.readHeader(id).current.dataGeneration;
    } catch {
      // Gone or half made: its first generation is all there can be.
    }
    this.#discard({ id, dataGeneration });
  }

  /** Makes names in the folder durable before it returns. @throws DiskError from the host. */
  syncFolderNow(): void {
    syncFolderNow(this.folder, 'sums.sync-folder');
  }

  /** @throws DiskError `not-found`, `damaged` when neither header copy is intact. */
  readHeader(id: DeltaId): HeaderCopies {
    return this.#withTuples(id, (fd, path) => readHeaderFrom(fd, path, id));
  }

  /** The same, with all that the file says of a small delta that is sealed. */
  readWhole(id: DeltaId): ReturnType<typeof readWhole> {
    return this.#withTuples(id, (fd, path) => readWhole(fd, path, id));
  }

  #withTuples<T>(id: DeltaId, look: (fd: number, path: string) => T): T {
    const path = this.tuplesPath(id);
    let fd: number;
    try {
      fd = openStored(path, 'r');
    } catch (error) {
      if (errnoName(error) === 'ENOENT') {
        throw new DiskError('not-found', `${path}: the delta's tuple file is missing`);
      }
      throw hostError(`cannot open ${path}`, error);
    }
    try {
      return orHostError(`cannot read ${path}`, () => look(fd, path));
    } finally {
      closeSync(fd);
    }
  }

  /**
   * Whether a record was ever appended, one that does not count after a crash included.
   * @throws DiskError `not-found`.
   */
  hasRecords(id: DeltaId): boolean {
    const path = this.tuplesPath(id);
    const found = statSync(path, { throwIfNoEntry: false });
    if (found !== undefined) return found.size > RECORDS_OFFSET;
    throw new DiskError('not-found', `${path}: the delta's tuple file is missing`);
  }

  exists(id: DeltaId): boolean {
    return existsSync(this.tuplesPath(id));
  }

  /** Ids of all tuple files in the folder. */
  async list(): Promise<DeltaId[]> {
    const names = await readdir(this.folder);
    return names
      .filter((name) => name.endsWith(TUPLES))
      .map((name) => name.slice(0, -TUPLES.length))
      .filter(isDeltaId);
  }

  /** Bytes that the two files take on the host. */
  storedSize(header: DeltaHeader): number {
    let bytes = 0;
    for (const path of [
      this.tuplesPath(header.id),
      this.dataPath(header.id, header.dataGeneration),
    ]) {
      // A missing one is said by whoever opens it; what the chain is can be told without.
      bytes += (statSync(path, { throwIfNoEntry: false })?.blocks ?? 0) * 512;
    }
    return bytes;
  }

  /**
   * Moves every file of deltas that are not in `keep` into `trash`, and data files whose delta
   * names another generation. Foreign files are left alone.
   * @param summing whether checksums are being written now, asked for each file: those that are not
   * finished stay.
   */
  async collect(
    keep: ReadonlyMap<DeltaId, number>,
    trash: string,
    dryRun: boolean,
    summing: () => boolean,
  ): Promise<{ files: string[]; bytes: number }> {
    const files: string[] = [];
    let bytes = 0;
    for (const name of await readdir(this.folder)) {
      const match = /^([0-9a-f]{32})(?:\.(\d+)\.data|\.tuples|\.sums)(\.new)?$/.exec(name);
      if (match === null) continue;
      const [, id, dataGeneration, unfinished] = match;
      const kept = keep.get(id!);
      const wanted =
        unfinished === undefined &&
        kept !== undefined &&
        (dataGeneration === undefined || Number(dataGeneration) === kept);
      if (wanted) continue;
      const path = join(this.folder, name);
      const found = await describeFile(path);
      // Whoever writes checksums may have begun, or been done, since the folder was listed, and
      // whoever removes files may have come before this: from here to the renaming nobody can.
      if (found === undefined || (unfinished !== undefined && summing())) continue;
      if (!existsSync(path)) continue;
      bytes += found.storedSize;
      files.push(path);
      if (dryRun) continue;
      try {
        hostCalls.rename(path, join(trash, name), 'delta.trash');
      } catch (error) {
        throw hostError(`cannot move ${path} to the trash`, error);
      }
    }
    return { files, bytes };
  }
}
