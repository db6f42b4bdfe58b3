/**
 * Checking delta files: both header copies, every committed tuple, the slots that they claim, the
 * checksums, and (`deep`) every block against its checksum. Background thread; changes nothing.
 *
 * The caller keeps the deltas from being removed, merged or punched meanwhile. Heads may be written
 * to: what is committed of a log never changes, and data is in the file before its tuple.
 */
import { closeSync, statSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { DiskError, errnoName } from '../../common/errors.js';
import { openStored } from '../../storage/stored-file.js';
import type { DeltaFiles } from '../delta/delta-files.js';
import { type DeltaHeader, HEADER_SIZE } from '../delta/delta-layout.js';
import { type HeaderCopy, readCopies } from '../delta/header-copies.js';
import { SumsReader } from '../delta/sums-file.js';
import { SUMS_PAGE } from '../delta/sums-layout.js';
import type { DeltaId } from '../delta-id.js';
import type { CheckedDeltas, JobWork } from '../engine.js';
import { checkData, checkSums } from './check-data.js';
import { CheckRun, textOf, whyNotOpened } from './check-run.js';
import { checkTuples } from './check-tuples.js';
import { Pace } from './pace.js';

export interface CheckJob {
  readonly deltas: readonly DeltaId[];
  readonly deep: boolean;
  /** The part of the time that it may take while no disk is in use. */
  readonly share: number;
}

/** A copy that is being written while it is read looks damaged: it is read again. */
const TRIES = 5;
const TRY_AGAIN_MS = 10;

/** @throws DiskError `interrupted` when cancelled. */
export async function checkDeltas(
  files: DeltaFiles,
  job: CheckJob,
  work: JobWork = {},
): Promise<CheckedDeltas> {
  const total = job.deltas.reduce((sum, id) => sum + bytesToRead(files, id, job.deep), 0);
  const run = new CheckRun(files, new Pace(work, job.share), work, total);
  for (const id of job.deltas) {
    try {
      await checkDelta(run, id, job.deep);
    } catch (error) {
      const isKnown = error instanceof DiskError || errnoName(error) !== undefined;
      if (!isKnown || (error instanceof DiskError && error.code === 'interrupted')) throw error;
      const message =
        error instanceof DiskError ? error.message : `cannot be read: ${textOf(error)}`;
      const isNewer = error instanceof DiskError && error.code === 'not-supported';
      const hint = isNewer && error.hint !== undefined ? { hint: error.hint } : {};
      run.found({ delta: id, part: 'tuples', file: files.tuplesPath(id), message, ...hint });
    }
  }
  const { findings, more, bytesRead, notSummed } = run;
  return { findings, more, bytesRead, notSummed };
}

function bytesToRead(files: DeltaFiles, id: DeltaId, deep: boolean): number {
  try {
    const tuples = statSync(files.tuplesPath(id)).size;
    return tuples + (deep ? statSync(files.dataPath(id, 1)).blocks * 512 : 0);
  } catch {
    // Missing: the check itself says so.
    return 0;
  }
}

async function checkDelta(run: CheckRun, id: DeltaId, deep: boolean): Promise<void> {
  const path = run.files.tuplesPath(id);
  let tuples: number;
  try {
    tuples = openStored(path, 'r');
  } catch (error) {
    const why = whyNotOpened(error);
    run.found({ delta: id, part: 'tuples', file: path, message: `the tuple file ${why}` });
    return;
  }
  try {
    const copies = await readSteadily(tuples, path, id);
    const header = checkCopies(run, id, copies);
    if (header === undefined) return;
    const readable = await checkTuples(run, tuples, header, copies);
    const sums = header.sealed ? await openSums(run, header) : undefined;
    try {
      if (sums !== undefined && deep && readable) await checkData(run, header, sums);
    } finally {
      sums?.close();
    }
  } finally {
    closeSync(tuples);
  }
}

async function readSteadily(fd: number, path: string, id: DeltaId): Promise<HeaderCopy[]> {
  for (let tries = 1; ; tries += 1) {
    const copies = readCopies(fd, path, id);
    const isWhole = copies.every(({ header, isUnused }) => header !== undefined || isUnused);
    if (isWhole || tries === TRIES) return copies;
    await delay(TRY_AGAIN_MS);
  }
}

/** @returns the header in force, undefined when there is none. */
function checkCopies(
  run: CheckRun,
  delta: DeltaId,
  copies: readonly HeaderCopy[],
): DeltaHeader | undefined {
  const file = run.files.tuplesPath(delta);
  const headers = copies
    .flatMap(({ header }) => (header === undefined ? [] : [header]))
    .sort((a, b) => b.generation - a.generation);
  for (const [index, { offset, header, isUnused }] of copies.entries()) {
    if (header !== undefined || isUnused) continue;
    const which = ['first', 'second'][index];
    run.found({
      delta,
      part: 'header',
      file,
      offset,
      length: HEADER_SIZE,
      message: `the ${which} copy of the header is damaged`,
      ...(headers.length > 0 ? { remedy: 'copy' } : {}),
    });
  }
  return headers[0];
}

/** @returns the checksums of a sealed delta, when there are any that can be used. */
async function openSums(run: CheckRun, header: DeltaHeader): Promise<SumsReader | undefined> {
  let sums: SumsReader | undefined;
  try {
    sums = SumsReader.open(run.files, header);
  } catch (error) {
    if (!(error instanceof DiskError)) throw error;
    const file = run.files.sumsPath(header.id);
    const { hint } = error;
    run.found({
      ...{ delta: header.id, part: 'sums', file },
      ...(error.code === 'damaged' ? { offset: 0, length: SUMS_PAGE } : {}),
      message: error.message.replace(`${file}: `, ''),
      // What only a newer version knows is not damaged, and must not be removed as such.
      ...(error.code === 'not-supported' && hint !== undefined ? { hint } : {}),
    });
    return undefined;
  }
  if (sums === undefined) run.notSummed.push(header.id);
  else await checkSums(run, header.id, sums);
  return sums;
}
