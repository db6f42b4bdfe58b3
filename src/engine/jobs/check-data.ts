/** Checking the checksums of a sealed delta, and its blocks against them. */
import { closeSync } from 'node:fs';
import { DiskError } from '../../common/errors.js';
import { BLOCK_SIZE, MiB } from '../../common/units.js';
import { readPadded } from '../../storage/exact-io.js';
import { openStored } from '../../storage/stored-file.js';
import type { DeltaHeader } from '../delta/delta-layout.js';
import { type SumsReader, sumsPageOffset } from '../delta/sums-file.js';
import { NOT_COVERED, SUMS_PAGE, SUMS_PER_PAGE, slotSum } from '../delta/sums-layout.js';
import type { DeltaId } from '../delta-id.js';
import type { CheckRun } from './check-run.js';
import { DeltaIndex, type SlotExtent } from './delta-index.js';

const CHUNK_SLOTS = MiB / 4 / BLOCK_SIZE;
/** Blocks in one finding: so many are compared one by one with what lies above. */
const MOST_BLOCKS = 1024;

/** Every page of the checksums. */
export async function checkSums(run: CheckRun, delta: DeltaId, sums: SumsReader): Promise<void> {
  for (let page = 0; page < sums.pages; page += 1) {
    if (!sums.load(page)) {
      const first = page * SUMS_PER_PAGE;
      const last = Math.min(first + SUMS_PER_PAGE, sums.header.slots) - 1;
      run.found({
        delta,
        part: 'sums',
        file: sums.path,
        offset: sumsPageOffset(page),
        length: SUMS_PAGE,
        message: `the checksums of slots ${first} to ${last} are damaged`,
      });
    }
    await run.read(SUMS_PAGE);
  }
}

/** Blocks in a row that are all wrong. */
interface BadRun extends SlotExtent {
  readonly why: string;
}

/** Every block of a sealed delta that is covered. */
export async function checkData(
  run: CheckRun,
  header: DeltaHeader,
  sums: SumsReader,
): Promise<void> {
  const file = run.files.dataPath(header.id, header.dataGeneration);
  const index = DeltaIndex.read(run.files, header);
  const fd = openStored(file, 'r');
  const buffer = Buffer.alloc(CHUNK_SLOTS * BLOCK_SIZE);
  let bad: BadRun | undefined;
  const report = (): void => {
    if (bad === undefined) return;
    const { block, slot, count, why } = bad;
    const place = { offset: slot * BLOCK_SIZE, length: count * BLOCK_SIZE, block, blocks: count };
    run.found({ delta: header.id, part: 'data', file, ...place, message: why });
    bad = undefined;
  };
  try {
    for (const extent of index.extents()) {
      for (let done = 0; done < extent.count; done += CHUNK_SLOTS) {
        const count = Math.min(CHUNK_SLOTS, extent.count - done);
        const part = { block: extent.block + done, slot: extent.slot + done, count };
        for (const next of badBlocks(fd, part, sums, buffer)) {
          if (bad !== undefined && follows(bad, next)) bad = { ...bad, count: bad.count + 1 };
          else {
            report();
            bad = next;
          }
        }
        await run.read(count * BLOCK_SIZE);
      }
    }
    report();
  } finally {
    closeSync(fd);
  }
}

function follows(run: BadRun, next: BadRun): boolean {
  const isNext = next.block === run.block + run.count && next.slot === run.slot + run.count;
  return isNext && next.why === run.why && run.count < MOST_BLOCKS;
}

function* badBlocks(
  fd: number,
  { block, slot, count }: SlotExtent,
  sums: SumsReader,
  buffer: Buffer,
): Generator<BadRun> {
  const whole = canRead(fd, buffer, count, slot);
  for (let index = 0; index < count; index += 1) {
    const place = { block: block + index, slot: slot + index, count: 1 };
    const known = sums.get(place.slot);
    // Not covered: given back, because nobody can see it. Undefined: said of the page of sums.
    if (known === undefined || known === NOT_COVERED) continue;
    const at = whole ? index * BLOCK_SIZE : 0;
    if (!whole && !canRead(fd, buffer, 1, place.slot)) {
      yield { ...place, why: 'these blocks cannot be read from the host disk' };
    } else if (slotSum(buffer.subarray(at, at + BLOCK_SIZE)) !== known) {
      yield { ...place, why: 'these blocks are not what they were when the delta was sealed' };
    }
  }
}

function canRead(fd: number, buffer: Buffer, count: number, slot: number): boolean {
  try {
    readPadded(fd, buffer, 0, count * BLOCK_SIZE, slot * BLOCK_SIZE, 'check.read-data');
    return true;
  } catch (error) {
    if (error instanceof DiskError) return false;
    throw error;
  }
}
