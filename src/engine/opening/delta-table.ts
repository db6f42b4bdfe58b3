/**
 * Deltas that are open: descriptors, shared by all volumes whose chains contain them. Main thread
 * only.
 */
import { closeSync, fstatSync } from 'node:fs';
import { invariant } from '../../common/assert.js';
import { DiskError } from '../../common/errors.js';
import { BLOCK_SIZE } from '../../common/units.js';
import { DescriptorReserve } from '../../storage/descriptor-reserve.js';
import { orHostError } from '../../storage/exact-io.js';
import { hostCalls } from '../../storage/host-calls.js';
import { requireStored } from '../../storage/stored-file.js';
import type { DeltaFiles } from '../delta/delta-files.js';
import { readHeaderFrom, type SealedDelta, writeHeader } from '../delta/delta-header.js';
import type { DeltaHeader, TupleRecord } from '../delta/delta-layout.js';
import { mirrorHeader } from '../delta/header-copies.js';
import { repairTuples, type ScanResult, scanSealed, scanTuples } from '../delta/tuple-scan.js';
import type { DeltaId } from '../delta-id.js';
import { CLOSED, DELTA, DELTA_WORDS, type SharedViews } from '../shared/shared-memory.js';

export interface OpenDelta {
  readonly id: DeltaId;
  readonly index: number;
  /** Volumes whose chain contains it. */
  users: number;
}

export class DeltaTable {
  readonly #files: DeltaFiles;
  readonly #views: SharedViews;
  readonly #open = new Map<DeltaId, OpenDelta>();
  readonly #freeIndexes: number[] = [];
  /** Of descriptors: what stays open leaves it to others. */
  readonly reserve = new DescriptorReserve();
  /** Index 0 stays unused: a zeroed row names no delta. */
  #nextIndex = 1;
  #sumsStamp = 0;

  constructor(files: DeltaFiles, views: SharedViews) {
    this.#files = files;
    this.#views = views;
  }

  /**
   * Opens a delta's data file, or counts one more user. @throws DiskError `damaged` or the host's
   * error.
   */
  use(header: DeltaHeader): OpenDelta {
    const known = this.#open.get(header.id);
    if (known !== undefined) {
      known.users += 1;
      return known;
    }
    const data = this.#openFile(this.#files.dataPath(header.id, header.dataGeneration));
    const index = this.#freeIndexes.pop() ?? this.#nextIndex++;
    invariant(index * DELTA_WORDS < this.#views.deltas.length, 'the delta table is full');
    const delta: OpenDelta = { id: header.id, index, users: 1 };
    this.#setFd(delta, DELTA.dataFd, data);
    this.#setFd(delta, DELTA.tuplesFd, CLOSED);
    this.#setFd(delta, DELTA.sumsFd, CLOSED);
    this.#open.set(header.id, delta);
    return delta;
  }

  /**
   * Hands the records of an open delta to `apply`. For its first user, what an earlier process left
   * is put in order: below a head, it is made durable and marked sealed; as a head, it is made
   * ready to be appended to.
   */
  load(delta: OpenDelta, role: 'head' | 'below', apply: (record: TupleRecord) => void): ScanResult {
    return orHostError(`cannot open delta ${delta.id}`, () => this.#load(delta, role, apply));
  }

  /** The same for a delta below a head that was read as a whole and needs no putting in order. */
  loadSealed(
    delta: OpenDelta,
    found: SealedDelta,
    apply: (record: TupleRecord) => void,
  ): ScanResult {
    return orHostError(`cannot open delta ${delta.id}`, () => {
      const scan = scanSealed(found, this.#files.tuplesPath(delta.id), this.#files.epoch, apply);
      this.#refuseShortData(delta, found.copies.current, scan);
      return scan;
    });
  }

  #load(
    delta: OpenDelta,
    role: 'head' | 'below',
    apply: (record: TupleRecord) => void,
  ): ScanResult {
    const path = this.#files.tuplesPath(delta.id);
    const opened = this.#fd(delta, DELTA.tuplesFd);
    const tuples = opened === CLOSED ? this.#openFile(path) : opened;
    let keep = opened !== CLOSED;
    try {
      const copies = readHeaderFrom(tuples, path, delta.id);
      const scan = scanTuples(tuples, path, copies, this.#files.epoch, apply);
      this.#refuseShortData(delta, copies.current, scan);
      // Of those below, only what the head stands on may have been sealed a moment ago.
      const { below } = copies.current;
      if (role === 'head') {
        this.#files.inherit(delta.id);
        if (below.kind === 'delta') this.#files.inherit(below.id);
      }
      if (role === 'head') {
        this.#prepareHead(tuples, scan, copies.current);
        this.#setFd(delta, DELTA.tuplesFd, tuples);
        keep = true;
      } else if (delta.users === 1 && !copies.current.sealed) {
        this.#seal(delta, tuples, scan, copies.current);
      }
      return scan;
    } finally {
      if (!keep) closeSync(tuples);
    }
  }

  /**
   * Data is in its file before its record is: one that ends earlier is not ours, but what a copy of
   * a store in use looks like. The next write would make zeroes of what is missing.
   */
  #refuseShortData(
    delta: OpenDelta,
    { id, dataGeneration }: DeltaHeader,
    { nextSlot }: ScanResult,
  ): void {
    if (nextSlot * BLOCK_SIZE <= fstatSync(this.dataFd(delta)).size) return;
    const path = this.#files.dataPath(id, dataGeneration);
    const what = 'is shorter than its tuples say';
    throw new DiskError('damaged', `${path}: the delta's data file ${what}`, {
      hint: 'restore it and its tuple file from one backup of the store; layerdisk check says more',
      errno: 'EIO',
    });
  }

  /** Makes what the scan found durable and read-only for ever. */
  #seal(delta: OpenDelta, tuples: number, scan: ScanResult, header: DeltaHeader): void {
    repairTuples(tuples, delta.id, scan);
    hostCalls.syncData(this.dataFd(delta), 'open.sync-data');
    const { epoch } = this.#files;
    const sealed = { ...header, committedRecords: scan.count, sealed: true, cacheEpoch: epoch };
    const written = writeHeader(tuples, sealed, 'open.seal');
    hostCalls.syncData(tuples, 'open.sync-tuples');
    mirrorHeader(tuples, written, 'open.mirror');
  }

  /**
   * Cuts off what does not count and takes the file over into this epoch, before anything is
   * appended.
   */
  #prepareHead(tuples: number, scan: ScanResult, header: DeltaHeader): void {
    if (header.sealed) {
      throw new DiskError('damaged', `delta ${header.id} is sealed and cannot be written to`, {
        errno: 'EIO',
      });
    }
    repairTuples(tuples, header.id, scan);
    const { epoch } = this.#files;
    if (header.cacheEpoch === epoch && scan.torn.length === 0) return;
    const written = writeHeader(tuples, { ...header, cacheEpoch: epoch }, 'open.take-over');
    hostCalls.syncData(tuples, 'open.sync-tuples');
    mirrorHeader(tuples, written, 'open.mirror');
  }

  get(id: DeltaId): OpenDelta | undefined {
    return this.#open.get(id);
  }

  openIds(): Iterable<DeltaId> {
    return this.#open.keys();
  }

  idOf(index: number): DeltaId | undefined {
    for (const delta of this.#open.values()) if (delta.index === index) return delta.id;
    return undefined;
  }

  /** Open deltas that are no heads, and whose checksums were not published. */
  *withoutSums(): Generator<DeltaId> {
    for (const delta of this.#open.values()) {
      const isHead = this.#fd(delta, DELTA.tuplesFd) !== CLOSED;
      if (!isHead && this.#fd(delta, DELTA.sumsFd) === CLOSED) yield delta.id;
    }
  }

  /** The descriptor is the table's from here on; it must come last, for threads look at it. */
  publishSums(id: DeltaId, { fd, slots, seed }: { fd: number; slots: number; seed: number }): void {
    const delta = this.#open.get(id);
    invariant(delta !== undefined, `delta ${id} is not open`);
    this.#sumsStamp += 1;
    this.#setFd(delta, DELTA.sumsSlots, slots);
    this.#setFd(delta, DELTA.sumsSeed, seed);
    this.#setFd(delta, DELTA.sumsStamp, this.#sumsStamp);
    this.#setFd(delta, DELTA.sumsFd, fd);
  }

  dataFd(delta: OpenDelta): number {
    return this.#fd(delta, DELTA.dataFd);
  }

  /** A head has become a sealed delta: its tuples are not appended to any more. */
  closeTuples(delta: OpenDelta): void {
    const fd = this.#fd(delta, DELTA.tuplesFd);
    this.#setFd(delta, DELTA.tuplesFd, CLOSED);
    if (fd !== CLOSED) closeSync(fd);
  }

  /**
   * One user less; the last one closes the files. No thread may be inside a volume that uses them.
   */
  release(id: DeltaId): void {
    const delta = this.#open.get(id);
    invariant(delta !== undefined && delta.users > 0, `delta ${id} is not open`);
    delta.users -= 1;
    if (delta.users > 0) return;
    this.#open.delete(id);
    this.closeTuples(delta);
    closeSync(this.dataFd(delta));
    this.#setFd(delta, DELTA.dataFd, CLOSED);
    const sums = this.#fd(delta, DELTA.sumsFd);
    this.#setFd(delta, DELTA.sumsFd, CLOSED);
    if (sums !== CLOSED) closeSync(sums);
    this.#freeIndexes.push(delta.index);
  }

  #fd(delta: OpenDelta, field: number): number {
    return this.#views.deltas[delta.index * DELTA_WORDS + field]!;
  }

  #setFd(delta: OpenDelta, field: number, fd: number): void {
    Atomics.store(this.#views.deltas, delta.index * DELTA_WORDS + field, fd);
  }

  #openFile(path: string): number {
    return orHostError(`cannot open ${path}`, () => this.reserve.leave(requireStored(path, 'r+')));
  }
}
