/** Replays, in memory, the log of a VHDX that was not closed cleanly ([MS-VHDX] 2.3.3). */
import { safeNumber } from '../../common/units.js';
import { NIL_UUID } from '../../common/uuid.js';
import type { ReadableFile } from '../../storage/host-file.js';
import { damaged } from '../image-error.js';
import { LogRing } from './log-ring.js';
import { findEntries, type LogEntry, readUpdates } from './log-scan.js';
import { ReplayedFile } from './replayed-file.js';
import type { VhdxHeader } from './vhdx-header.js';

export interface ReplayedLog {
  /** The file as it is once the log has been written out. */
  readonly file: ReadableFile;
  readonly notes: readonly string[];
}

/**
 * The file itself is not written. An empty log costs nothing: `file` is then the one that was
 * given.
 * @throws DiskError `damaged` when there is no valid sequence of entries, or when the file is
 *   shorter than the log says that it was.
 */
export function replayLog(file: ReadableFile, header: VhdxHeader): ReplayedLog {
  if (header.logGuid === NIL_UUID) return { file, notes: [] };
  const { path } = file;
  const ring = new LogRing(file, { offset: header.logOffset, length: header.logLength });
  const sequence = activeSequence(ring, findEntries(ring, header.logGuid));
  const head = sequence.at(-1);
  if (head === undefined) {
    throw damaged(path, 'the log is not empty, but holds no valid sequence of entries');
  }
  if (BigInt(file.size) < head.flushedFileOffset) {
    const before = `${head.flushedFileOffset} bytes long when its log was written`;
    throw damaged(path, `the file was ${before}, now it has ${file.size}: it was truncated`);
  }
  const updates = readUpdates(ring, sequence);
  const lastFileOffset = safeNumber(head.lastFileOffset, `${path}: file size in the log`);
  const what = `${sequence.length} log entries with ${updates.count} updates`;
  return {
    file: new ReplayedFile(file, updates, lastFileOffset),
    notes: [`was not closed cleanly: ${what} are replayed in memory`],
  };
}

/**
 * The newest row of entries, each one's number one above that of the one before it, which contains
 * the entry that its last one names as tail; from that tail on, for what is older has been written
 * out. Empty when there is none.
 */
function activeSequence(ring: LogRing, entries: readonly LogEntry[]): LogEntry[] {
  const byPosition = new Map(entries.map((entry) => [entry.at, entry]));
  const next = new Map<LogEntry, LogEntry>();
  for (const entry of entries) {
    const candidate = byPosition.get(ring.after(entry.at, entry.length));
    if (candidate?.sequenceNumber === entry.sequenceNumber + 1n) next.set(entry, candidate);
  }
  const followers = new Set(next.values());
  let active: LogEntry[] = [];
  for (const start of entries) {
    if (followers.has(start)) continue;
    const row: LogEntry[] = [];
    for (let at: LogEntry | undefined = start; at !== undefined; at = next.get(at)) row.push(at);
    const head = row.at(-1)!;
    const tail = row.findIndex((entry) => entry.at === head.tail);
    const newest = active.at(-1)?.sequenceNumber ?? 0n;
    if (tail >= 0 && head.sequenceNumber > newest) active = row.slice(tail);
  }
  return active;
}
