/** The internal snapshots of a qcow2 image. */
import { DiskError } from '../../common/errors.js';
import { alignUp, safeNumber } from '../../common/units.js';
import type { InternalSnapshot } from '../../engine/disk-image.js';
import type { ReadableFile } from '../../storage/host-file.js';
import { damaged } from '../image-error.js';
import { currentBudget, OBJECT_BYTES } from '../memory-budget.js';
import { quoteName } from '../sibling-path.js';
import type { Qcow2Header } from './qcow2-header.js';
import {
  ENTRY_SIZE,
  MAX_SNAPSHOT_TABLE_BYTES,
  SNAPSHOT_ENTRY,
  SNAPSHOT_EXTRA,
} from './qcow2-layout.js';

export interface StoredSnapshot extends InternalSnapshot {
  readonly l1TableOffset: bigint;
  /** Entries. */
  readonly l1Size: number;
}

/** What the snapshot table takes in the file, and what it says. */
export interface SnapshotTable {
  readonly length: number;
  readonly snapshots: readonly StoredSnapshot[];
}

/**
 * @throws DiskError `damaged` when the table reaches past the end of the file or beyond the limit.
 */
export function readSnapshotTable(file: ReadableFile, header: Qcow2Header): SnapshotTable {
  const { offset, count } = header.snapshots;
  const snapshots: StoredSnapshot[] = [];
  const fixed = Buffer.alloc(SNAPSHOT_ENTRY.size);
  let at = offset;
  for (let index = 0; index < count; index += 1) {
    file.readExact(fixed, 0, fixed.length, at);
    const entry = SNAPSHOT_ENTRY.decode(fixed);
    const variable = entry.extraDataSize + entry.idSize + entry.nameSize;
    const next = at + alignUp(SNAPSHOT_ENTRY.size + variable, 8);
    if (next - offset > MAX_SNAPSHOT_TABLE_BYTES || next > file.size + 7) {
      throw damaged(file.path, `entry ${index} of the snapshot table reaches out of the table`);
    }
    const rest = Buffer.alloc(variable);
    file.readExact(rest, 0, variable, at + SNAPSHOT_ENTRY.size);
    currentBudget().take(variable + OBJECT_BYTES, file.path);
    snapshots.push(decodeEntry(file.path, entry, rest, header.virtualSize));
    at = next;
  }
  return { length: at - offset, snapshots };
}

/**
 * The snapshot with this name, else with this id.
 * @throws DiskError `not-found`, listing what there is.
 */
export function findSnapshot(
  path: string,
  snapshots: readonly StoredSnapshot[],
  wanted: string,
): StoredSnapshot {
  const found =
    snapshots.find((one) => one.name === wanted) ?? snapshots.find((one) => one.id === wanted);
  if (found !== undefined) return found;
  const names = snapshots.slice(0, 10).map((one) => quoteName(one.name));
  const more = snapshots.length > names.length ? ', ...' : '';
  throw new DiskError('not-found', `${path}: no internal snapshot ${quoteName(wanted)}`, {
    hint: names.length === 0 ? 'it has none' : `it has: ${names.join(', ')}${more}`,
  });
}

function decodeEntry(
  path: string,
  entry: ReturnType<typeof SNAPSHOT_ENTRY.decode>,
  rest: Buffer,
  imageSize: number,
): StoredSnapshot {
  const idStart = entry.extraDataSize;
  const nameStart = idStart + entry.idSize;
  const hasExtra = entry.extraDataSize >= SNAPSHOT_EXTRA.size;
  const extra = hasExtra ? SNAPSHOT_EXTRA.decode(rest) : undefined;
  const name = rest.toString('utf8', nameStart, nameStart + entry.nameSize);
  return {
    id: rest.toString('utf8', idStart, nameStart),
    name,
    takenAt: entry.dateSeconds,
    virtualSize:
      extra === undefined
        ? imageSize
        : safeNumber(extra.diskSize, `${path}: size of snapshot ${quoteName(name)}`),
    hasMachineState: (extra?.vmStateSize ?? BigInt(entry.vmStateSize)) !== 0n,
    l1TableOffset: entry.l1TableOffset,
    l1Size: entry.l1Size,
  };
}

/** Bytes of a snapshot's L1 table, as the snapshot states them. */
export function l1Bytes(snapshot: StoredSnapshot): number {
  return snapshot.l1Size * ENTRY_SIZE;
}
