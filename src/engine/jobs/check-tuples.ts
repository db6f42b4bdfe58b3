/** Checking the log of a delta: every committed tuple verifies, and no slot is claimed twice. */
import { closeSync, fstatSync } from 'node:fs';
import { BLOCK_SIZE, divCeil, MiB } from '../../common/units.js';
import { readPadded } from '../../storage/exact-io.js';
import { openStored } from '../../storage/stored-file.js';
import {
  type DeltaHeader,
  decodeRecord,
  RECORD_SIZE,
  RECORD_WRITE,
  RECORDS_OFFSET,
  recordSeed,
  type TupleRecord,
} from '../delta/delta-layout.js';
import { areSettled, type HeaderCopy } from '../delta/header-copies.js';
import { SlotSet } from '../delta/slot-set.js';
import { type CheckRun, whyNotOpened } from './check-run.js';

const CHUNK_RECORDS = MiB / 4 / RECORD_SIZE;

/** @returns whether the log says which slots hold what. */
export async function checkTuples(
  run: CheckRun,
  fd: number,
  header: DeltaHeader,
  copies: readonly HeaderCopy[],
): Promise<boolean> {
  const claims = openClaims(run, header);
  const count = header.committedRecords;
  const tornFrom = firstInDoubt(header, copies);
  const seed = recordSeed(header.id);
  const record: TupleRecord = { kind: RECORD_WRITE, block: 0, count: 0, slot: 0 };
  const bytes = Buffer.alloc(Math.min(count, CHUNK_RECORDS) * RECORD_SIZE);
  const damaged: number[] = [];
  for (let first = 0; first < count; first += CHUNK_RECORDS) {
    const inChunk = Math.min(count - first, CHUNK_RECORDS);
    const offset = RECORDS_OFFSET + first * RECORD_SIZE;
    readPadded(fd, bytes, 0, inChunk * RECORD_SIZE, offset, 'check.read-tuples');
    for (let index = 0; index < inChunk; index += 1) {
      const sequence = first + index;
      if (decodeRecord(bytes, index * RECORD_SIZE, record, { sequence, seed })) {
        if (record.kind === RECORD_WRITE) claims?.claim(record, sequence);
      } else if (sequence < tornFrom) damaged.push(sequence);
    }
    await run.read(inChunk * RECORD_SIZE);
  }
  reportRecords(run, header, damaged);
  return claims !== undefined && damaged.length === 0;
}

/**
 * The first record that may be torn without being damage: those of a commit that a power cut
 * interrupted, the sealing included. The copies stay different as long as there are any.
 */
function firstInDoubt(header: DeltaHeader, copies: readonly HeaderCopy[]): number {
  const all = header.committedRecords;
  if (areSettled(copies)) return all;
  const counts = copies.map((copy) => copy.header?.committedRecords ?? all);
  return Math.min(all, ...counts);
}

/** Neighbours in one finding. */
function reportRecords(run: CheckRun, header: DeltaHeader, damaged: readonly number[]): void {
  for (let at = 0; at < damaged.length; ) {
    const first = damaged[at]!;
    let count = 1;
    while (damaged[at + count] === first + count) count += 1;
    const which = count === 1 ? `tuple ${first} is` : `tuples ${first} to ${first + count - 1} are`;
    run.found({
      delta: header.id,
      part: 'tuples',
      file: run.files.tuplesPath(header.id),
      offset: RECORDS_OFFSET + first * RECORD_SIZE,
      length: count * RECORD_SIZE,
      message: `${which} damaged: which blocks the delta holds is not known for certain`,
    });
    at += count;
  }
}

/** The slots of a data file, each for one tuple. */
class Claims {
  readonly #run: CheckRun;
  readonly #header: DeltaHeader;
  readonly #taken: SlotSet;

  constructor(run: CheckRun, header: DeltaHeader, slots: number) {
    this.#run = run;
    this.#header = header;
    this.#taken = new SlotSet(slots);
  }

  claim({ block, slot, count }: TupleRecord, sequence: number): void {
    const { id, dataGeneration } = this.#header;
    const { files } = this.#run;
    const end = Math.min(slot + count, this.#taken.slots);
    if (end < slot + count) {
      const first = Math.max(slot, end);
      this.#run.found({
        delta: id,
        part: 'data',
        file: files.dataPath(id, dataGeneration),
        offset: first * BLOCK_SIZE,
        length: (slot + count - first) * BLOCK_SIZE,
        block: block + first - slot,
        blocks: slot + count - first,
        message: 'the data file ends before these blocks',
      });
    }
    if (end <= slot) return;
    if (this.#taken.seek(slot, end, true) < end) {
      this.#run.found({
        delta: id,
        part: 'tuples',
        file: files.tuplesPath(id),
        offset: RECORDS_OFFSET + sequence * RECORD_SIZE,
        length: RECORD_SIZE,
        block,
        blocks: count,
        message: `tuple ${sequence} claims slots that another one has`,
      });
    }
    this.#taken.add(slot, end - slot);
  }
}

/** Undefined, and said, when there is no data file. */
function openClaims(run: CheckRun, header: DeltaHeader): Claims | undefined {
  const file = run.files.dataPath(header.id, header.dataGeneration);
  try {
    const fd = openStored(file, 'r');
    try {
      return new Claims(run, header, divCeil(fstatSync(fd).size, BLOCK_SIZE));
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    const why = whyNotOpened(error);
    run.found({ delta: header.id, part: 'data', file, message: `the data file ${why}` });
    return undefined;
  }
}
