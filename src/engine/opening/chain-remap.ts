/**
 * Letting an open volume read a merged delta in the place of the row of deltas that it was made of.
 * Without that a disk that is in use for months would hold every delta that ever was in its chain.
 *
 * 1. open the merged delta: the chain has it and the row from here on
 * 2. for each block of it that the map finds in the row: map it to the merged delta, a few at a
 *    time, under the log lock (requests go on: both hold the same bytes)
 * 3. close the gate, wait until no request is inside, open it: nobody reads the row any more
 * 4. close the row
 *
 * The work is as much as was merged, whatever the disk's size. Whatever fails before 4, the volume
 * is whole, and the next call goes on with it.
 */
import { closeSync } from 'node:fs';
import { setImmediate as letOthersIn } from 'node:timers/promises';
import { BLOCK_SIZE, divCeil } from '../../common/units.js';
import { openStored } from '../../storage/stored-file.js';
import { type DeltaHeader, RECORD_WRITE, type TupleRecord } from '../delta/delta-layout.js';
import { readRecords } from '../delta/tuple-scan.js';
import type { DeltaId } from '../delta-id.js';
import { ChainMap } from '../shared/chain-map.js';
import { whileShut } from '../shared/gate.js';
import { LEAF_BLOCKS } from '../shared/leaf-shape.js';
import { DATA } from '../shared/map-words.js';
import { VOLUME } from '../shared/shared-memory.js';
import { lockMutex, unlockMutex } from '../shared/shared-mutex.js';
import { SEGMENT_SLOTS, SlotSpace, slotsToSegmentEnd } from '../shared/slot-space.js';
import { VolumeRow } from '../shared/volume-row.js';
import type { ChainTools } from './chain-loader.js';
import type { OpenEntry } from './head-switch.js';

/** Records that are read at a time. */
const CHUNK = 1024;
/** How long the main thread works before it lets others in, milliseconds. */
const MAX_WORK_MS = 5;

export interface MergedRow {
  /** Deltas of a chain, one on the other. */
  readonly row: readonly DeltaId[];
  /** What shows the same as all of them. */
  readonly made: DeltaId;
}

/**
 * The caller counts as a user of the volume, so that it stays open.
 * @param signal breaks it off.
 * @throws DiskError as opening a delta does.
 */
export async function remapChain(
  tools: ChainTools,
  entry: OpenEntry,
  { row, made }: MergedRow,
  signal?: AbortSignal,
): Promise<void> {
  const { table, files } = tools;
  const header = files.readHeader(made).current;
  if (!entry.chain.deltas.includes(made)) {
    table.use(header);
    entry.chain = { ...entry.chain, deltas: placed(entry.chain.deltas, row, made) };
  }
  const remap = new Remap(tools, entry, header, row);
  const tuples = openStored(files.tuplesPath(made), 'r');
  try {
    let resumed = performance.now();
    for (let from = 0; from < header.committedRecords; from += CHUNK) {
      const count = Math.min(CHUNK, header.committedRecords - from);
      for (const record of readRecords(tuples, header, { from, count })) {
        if (record.kind !== RECORD_WRITE) continue;
        for (const part of remap.partsOf(record)) {
          remap.map(part);
          if (performance.now() - resumed < MAX_WORK_MS) continue;
          await letOthersIn();
          resumed = performance.now();
          if (remap.isOver || signal?.aborted === true) return;
        }
      }
    }
  } finally {
    closeSync(tuples);
  }
  remap.leaveRow();
}

/** The chain with `made` where `row` is, and that below it. */
function placed(deltas: readonly DeltaId[], row: readonly DeltaId[], made: DeltaId): DeltaId[] {
  const at = deltas.findIndex((id) => row.includes(id));
  return [...deltas.slice(0, at), made, ...deltas.slice(at)];
}

class Remap {
  readonly #tools: ChainTools;
  readonly #entry: OpenEntry;
  readonly #volume: VolumeRow;
  readonly #incarnation: number;
  readonly #map: ChainMap;
  readonly #space: SlotSpace;
  readonly #blocks: number;
  readonly #delta: number;
  readonly #row: readonly DeltaId[];
  /** Indexes of its deltas. */
  readonly #former: ReadonlySet<number>;
  /** First addresses of the segments of the merged delta, by its segments' numbers. */
  readonly #segments = new Map<number, number>();

  constructor(tools: ChainTools, entry: OpenEntry, made: DeltaHeader, row: readonly DeltaId[]) {
    const { views, liveNodes, table } = tools;
    const volume = new VolumeRow(views, entry.index);
    this.#tools = tools;
    this.#entry = entry;
    this.#volume = volume;
    this.#incarnation = volume.get(VOLUME.incarnation);
    const place = { root: volume.get(VOLUME.mapRoot), levels: volume.get(VOLUME.mapLevels) };
    this.#map = new ChainMap(liveNodes, place);
    this.#space = new SlotSpace(views.volumes, liveNodes.pages, entry.index);
    this.#blocks = divCeil(volume.size, BLOCK_SIZE);
    this.#delta = table.get(made.id)!.index;
    this.#row = row;
    this.#former = new Set(row.map((id) => table.get(id)!.index));
  }

  /** Whether a restore has put another chain into the volume's place. */
  get isOver(): boolean {
    return this.#volume.get(VOLUME.incarnation) !== this.#incarnation;
  }

  /** A record cut where leaves and segments end. */
  *partsOf({ kind, block, slot, count }: TupleRecord): Generator<TupleRecord> {
    // A delta from before the disk was made smaller may know blocks past its end.
    const end = Math.min(count, this.#blocks - block);
    for (let done = 0; done < end; ) {
      const inLeaf = LEAF_BLOCKS - ((block + done) % LEAF_BLOCKS);
      const inSegment = SEGMENT_SLOTS - ((slot + done) % SEGMENT_SLOTS);
      const part = Math.min(end - done, inLeaf, inSegment);
      yield { kind, block: block + done, slot: slot + done, count: part };
      done += part;
    }
  }

  /** Maps those of the blocks to the merged delta that are found in the row. */
  map({ block, slot, count }: TupleRecord): void {
    this.#locked(() => {
      for (let done = 0; done < count; ) {
        this.#map.find(block + done, count - done);
        const { kind, address } = this.#map;
        const found = this.#map.count;
        const part = kind === DATA ? Math.min(found, slotsToSegmentEnd(address)) : found;
        if (kind === DATA) {
          this.#space.resolve(address);
          if (this.#former.has(this.#space.delta)) {
            this.#map.set(block + done, part, DATA, this.#addressOf(slot + done));
          }
        }
        done += part;
      }
    });
  }

  #addressOf(slot: number): number {
    const segment = Math.floor(slot / SEGMENT_SLOTS);
    let start = this.#segments.get(segment);
    if (start === undefined) {
      start = this.#space.addSegment(this.#delta, segment * SEGMENT_SLOTS);
      this.#segments.set(segment, start);
    }
    return start + (slot % SEGMENT_SLOTS);
  }

  /** The map names the row no longer: closes it. */
  leaveRow(): void {
    const { views, table } = this.#tools;
    whileShut(views, [this.#entry.index], () => {
      this.#locked(() => this.#space.freeSegments(this.#former));
    });
    const { chain } = this.#entry;
    const deltas = chain.deltas.filter((id) => !this.#row.includes(id));
    this.#entry.chain = { ...chain, deltas };
    for (const id of this.#row) table.release(id);
  }

  #locked(task: () => void): void {
    const { volumeWords } = this.#tools.views;
    const word = this.#volume.word(VOLUME.logLock);
    lockMutex(volumeWords, word);
    try {
      task();
    } finally {
      unlockMutex(volumeWords, word);
    }
  }
}
