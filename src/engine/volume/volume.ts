/**
 * An open volume as one thread sees it: the block device that a transport serves.
 *
 * Every call passes the gate (see gate.ts), so nothing here runs while heads are switched. Byte
 * requests are cut into runs of one kind by the chain map; partial blocks are `head-writer.ts`'s
 * business.
 */

import { invariant } from '../../common/assert.js';
import { DiskError } from '../../common/errors.js';
import type { MapExtent } from '../../common/extent-map.js';
import { BLOCK_SIZE } from '../../common/units.js';
import { readPadded } from '../../storage/exact-io.js';
import type { Base } from '../base.js';
import type { BlockDevice } from '../block-device.js';
import type { Extent } from '../disk-image.js';
import type { Allowance } from '../shared/allowance.js';
import { ChainMap } from '../shared/chain-map.js';
import { enterGate, leaveGate } from '../shared/gate.js';
import { DATA, UNMAPPED, ZERO } from '../shared/map-words.js';
import type { NodePool } from '../shared/node-pool.js';
import type { RangeLock } from '../shared/range-lock.js';
import {
  DELTA,
  DELTA_WORDS,
  MAX_VOLUMES,
  type SharedViews,
  STAT,
  STAT_FIELDS,
  THREAD,
  THREAD_WORDS,
  VOLUME,
} from '../shared/shared-memory.js';
import { SlotSpace, slotsToSegmentEnd } from '../shared/slot-space.js';
import { VolumeRow } from '../shared/volume-row.js';
import type { BaseTable } from './base-table.js';
import { flushVolume, suspectError } from './commit.js';
import { flushVolumeAsync } from './durable-switch.js';
import { HeadWriter } from './head-writer.js';
import type { ReadVerifier } from './read-verifier.js';
import { FROM_BASE, FROM_NOBODY, type RunReader, type RunSources } from './run-reader.js';

/** What a thread brings along to all its volumes. */
export interface ThreadContext {
  readonly views: SharedViews;
  readonly nodes: NodePool;
  readonly bases: BaseTable;
  readonly allowance: Allowance;
  readonly ranges: RangeLock;
  readonly runs: RunReader;
  /** Index of this thread among all that touch volumes. */
  readonly thread: number;
  /** Where reads are checked against checksums. */
  readonly verifier: ReadVerifier | undefined;
}

/** Who answers for a run of `length` bytes of a volume. */
export type VolumePiece = { readonly length: number } & (
  | { readonly kind: 'delta'; readonly delta: number; readonly offset: number }
  | { readonly kind: 'base'; readonly extent: MapExtent }
  /** Some delta says zero; the map does not remember which. */
  | { readonly kind: 'zero' }
  | { readonly kind: 'nothing' }
);

export class Volume implements BlockDevice, RunSources {
  readonly row: VolumeRow;
  readonly map: ChainMap;
  readonly space: SlotSpace;
  /** Where the volume's numbers stood when this object last looked. */
  #incarnation = -1;
  #size = 0;
  #readOnly = true;
  #base: Base | undefined;
  readonly #context: ThreadContext;
  readonly #place: { volume: number; thread: number };
  readonly #writer: HeadWriter;
  readonly #stats: number;
  readonly #served: number;
  readonly #extent: Extent = { state: 'unallocated', length: 0 };

  constructor(context: ThreadContext, index: number) {
    this.#context = context;
    this.row = new VolumeRow(context.views, index);
    this.map = new ChainMap(context.nodes, { root: 0, levels: 0 });
    this.space = new SlotSpace(context.views.volumes, context.nodes.pages, index);
    this.#place = { volume: index, thread: context.thread };
    this.#writer = new HeadWriter(context, this);
    this.#stats = (context.thread * MAX_VOLUMES + index) * STAT_FIELDS;
    this.#served = context.thread * THREAD_WORDS + THREAD.served;
    this.refresh();
  }

  /** Of the row, when this object last took it over. */
  get incarnation(): number {
    return this.#incarnation;
  }

  get size(): number {
    return this.#size;
  }

  get readOnly(): boolean {
    return this.#readOnly;
  }

  get base(): Base | undefined {
    return this.#base;
  }

  get allocatedSize(): number {
    return this.row.allocated;
  }

  /**
   * Takes over what changed since: another volume in this row, a restored chain. Cheap when nothing
   * did. @throws DiskError when its base cannot be opened, each time anew.
   */
  refresh(): void {
    const row = this.row;
    const incarnation = row.get(VOLUME.incarnation);
    if (incarnation === this.#incarnation) return;
    // First what can fail: the next request must not find the base of the volume before.
    const base = row.get(VOLUME.base);
    this.#base = base === 0 ? undefined : this.#context.bases.get(base);
    this.#size = row.size;
    this.#readOnly = row.readOnly;
    this.map.root = row.get(VOLUME.mapRoot);
    this.map.levels = row.get(VOLUME.mapLevels);
    this.#incarnation = incarnation;
  }

  #enter(): void {
    const { views } = this.#context;
    enterGate(views.volumeWords, views.threads, this.#place);
    try {
      this.refresh();
    } catch (error) {
      this.#leave();
      throw error;
    }
  }

  #leave(): void {
    leaveGate(this.#context.views.threads, this.#place.thread);
  }

  #count(calls: number, bytes: number, length: number): void {
    const { stats, threads } = this.#context.views;
    stats[this.#stats + calls] = stats[this.#stats + calls]! + 1;
    if (bytes < 0) return;
    stats[this.#stats + bytes] = stats[this.#stats + bytes]! + length;
    threads[this.#served] = (threads[this.#served]! + 1) | 0;
  }

  read(target: Buffer, targetOffset: number, offset: number, length: number): void {
    this.#enter();
    try {
      this.readInside(target, targetOffset, offset, length);
    } finally {
      this.#leave();
    }
    this.#count(STAT.reads, STAT.readBytes, length);
  }

  /**
   * `read` for callers that are inside the gate already. May reach past the end of the disk:
   * zeroes.
   */
  readInside(target: Buffer, targetOffset: number, offset: number, length: number): void {
    const map = this.map;
    const { runs } = this.#context;
    runs.begin();
    let done = 0;
    while (done < length) {
      const at = offset + done;
      const inner = at % BLOCK_SIZE;
      const wanted = length - done;
      map.find((at - inner) / BLOCK_SIZE, Math.ceil((inner + wanted) / BLOCK_SIZE));
      const bytes = Math.min(wanted, map.count * BLOCK_SIZE - inner);
      if (map.kind === DATA) {
        done += this.#addData(targetOffset + done, inner, bytes);
      } else {
        const source = map.kind === UNMAPPED && this.#base !== undefined ? FROM_BASE : FROM_NOBODY;
        runs.add(source, at, targetOffset + done, bytes);
        done += bytes;
      }
      if (runs.full) runs.finish(this, target);
    }
    runs.finish(this, target);
  }

  /**
   * Notes the run found last, up to the end of its segment: `inner` bytes into its first block,
   * at most `length` bytes. @returns how many.
   */
  #addData(targetOffset: number, inner: number, length: number): number {
    const { space, map } = this;
    const bytes = Math.min(length, slotsToSegmentEnd(map.address) * BLOCK_SIZE - inner);
    space.resolve(map.address);
    this.#context.runs.add(space.delta, space.slot * BLOCK_SIZE + inner, targetOffset, bytes);
    return bytes;
  }

  /** For the run reader. */
  readSource(
    source: number,
    target: Buffer,
    targetOffset: number,
    position: number,
    length: number,
    isSpan: boolean,
  ): void {
    if (source === FROM_BASE) {
      invariant(this.#base !== undefined, 'a base that answers');
      this.#readBase(this.#base, target, targetOffset, position, length);
      return;
    }
    const { verifier, views } = this.#context;
    if (verifier !== undefined) {
      const skip = position % BLOCK_SIZE;
      const place = { slot: (position - skip) / BLOCK_SIZE, skip, length, isSpan };
      verifier.read(source, place, target, targetOffset);
      return;
    }
    const fd = views.deltas[source * DELTA_WORDS + DELTA.dataFd]!;
    readPadded(fd, target, targetOffset, length, position, 'delta.read');
  }

  #readBase(
    base: Base,
    target: Buffer,
    targetOffset: number,
    offset: number,
    length: number,
  ): void {
    const inside = Math.max(0, Math.min(length, base.virtualSize - offset));
    if (inside > 0) base.readAt(target, targetOffset, offset, inside);
    if (inside < length) target.fill(0, targetOffset + inside, targetOffset + length);
  }

  write(source: Buffer, sourceOffset: number, offset: number, length: number): void {
    this.#enter();
    try {
      this.#checkWritable();
      this.#writer.write(source, sourceOffset, offset, length);
    } finally {
      this.#leave();
    }
    this.#count(STAT.writes, STAT.writtenBytes, length);
  }

  discard(offset: number, length: number): void {
    this.#enter();
    try {
      this.#checkWritable();
      this.#writer.discard(offset, length);
    } finally {
      this.#leave();
    }
    this.#count(STAT.discards, -1, 0);
  }

  /**
   * Fills blocks that the head does not hold by sharing a range of another data file.
   * @returns false when the host cannot; nothing has changed then.
   */
  shareBlocks(block: number, count: number, place: { fd: number; offset: number }): boolean {
    this.#enter();
    try {
      this.#checkWritable();
      return this.#writer.shareBlocks(block, count, place);
    } finally {
      this.#leave();
    }
  }

  #checkWritable(): void {
    if (this.#readOnly) {
      throw new DiskError('not-permitted', 'a snapshot is read-only', { errno: 'EROFS' });
    }
    if (this.row.failed) throw suspectError();
  }

  flush(): void {
    if (!this.row.readOnly) flushVolume(this.#context.views, this.row);
    this.#count(STAT.flushes, -1, 0);
  }

  async flushAsync(): Promise<void> {
    if (!this.row.readOnly) await flushVolumeAsync(this.#context.views, this.row);
    this.#count(STAT.flushes, -1, 0);
  }

  nextData(offset: number): number {
    return this.#next(offset, true);
  }

  nextHole(offset: number): number {
    const found = this.#next(offset, false);
    return found < 0 ? this.#size : found;
  }

  /** First byte at or after `offset` that is (or is not) data; -1 for none. */
  #next(offset: number, data: boolean): number {
    this.#enter();
    try {
      let at = offset;
      while (at < this.#size) {
        const length = this.extentInside(at, this.#size - at, this.#extent);
        if ((this.#extent.state === 'data') === data) return at;
        at += length;
      }
      return -1;
    } finally {
      this.#leave();
    }
  }

  /**
   * The run from `offset` on, for copies and maps: `data`, `zero` for what someone made zero, or
   * `unallocated` for what nobody holds, which reads as zero.
   */
  extentAt(offset: number, length: number, out: Extent): void {
    this.#enter();
    try {
      this.extentInside(offset, length, out);
    } finally {
      this.#leave();
    }
  }

  /** The run from `offset` on as the deltas alone say it: `unallocated` where the base answers. */
  deltaExtentAt(offset: number, length: number, out: Extent): void {
    this.#enter();
    try {
      const inner = offset % BLOCK_SIZE;
      this.map.find((offset - inner) / BLOCK_SIZE, Math.ceil((inner + length) / BLOCK_SIZE));
      const { kind, count } = this.map;
      out.state = kind === DATA ? 'data' : kind === UNMAPPED ? 'unallocated' : 'zero';
      out.length = Math.min(length, count * BLOCK_SIZE - inner);
    } finally {
      this.#leave();
    }
  }

  /** The piece of a map that begins at `offset`, at most `length` bytes. */
  mapAt(offset: number, length: number): VolumePiece {
    this.#enter();
    try {
      return this.#mapInside(offset, length);
    } finally {
      this.#leave();
    }
  }

  #mapInside(offset: number, length: number): VolumePiece {
    const inner = offset % BLOCK_SIZE;
    const { map, space } = this;
    map.find((offset - inner) / BLOCK_SIZE, Math.ceil((inner + length) / BLOCK_SIZE));
    const bytes = Math.min(length, map.count * BLOCK_SIZE - inner);
    if (map.kind === DATA) {
      const inSegment = slotsToSegmentEnd(map.address) * BLOCK_SIZE - inner;
      space.resolve(map.address);
      return {
        kind: 'delta',
        delta: space.delta,
        offset: space.slot * BLOCK_SIZE + inner,
        length: Math.min(bytes, inSegment),
      };
    }
    const base = this.#base;
    if (map.kind === UNMAPPED && base !== undefined && offset < base.virtualSize) {
      const inside = Math.min(bytes, base.virtualSize - offset);
      const extent = base.mapAt?.(offset, inside);
      if (extent !== undefined) return { kind: 'base', extent, length: extent.length };
    }
    return { kind: map.kind === UNMAPPED ? 'nothing' : 'zero', length: bytes };
  }

  /** @returns the length, which is in `out` too. */
  extentInside(offset: number, length: number, out: Extent): number {
    const inner = offset % BLOCK_SIZE;
    this.map.find((offset - inner) / BLOCK_SIZE, Math.ceil((inner + length) / BLOCK_SIZE));
    const bytes = Math.min(length, this.map.count * BLOCK_SIZE - inner);
    const base = this.#base;
    if (this.map.kind === UNMAPPED && base !== undefined && offset < base.virtualSize) {
      base.extentAt(offset, Math.min(bytes, base.virtualSize - offset), out);
      return out.length;
    }
    const { kind } = this.map;
    out.state = kind === DATA ? 'data' : kind === ZERO ? 'zero' : 'unallocated';
    out.length = bytes;
    return bytes;
  }
}
