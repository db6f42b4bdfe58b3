/**
 * Room in the store's file system: what needs some is refused before it starts when it is known
 * that there is not enough. What makes room, or needs next to nothing of it, is never asked.
 */
import { DiskError } from '../common/errors.js';
import { formatSize, KiB } from '../common/units.js';
import { freeSpace } from '../storage/free-space.js';

export interface Room {
  /** Bytes. */
  readonly free: number;
  /** How many of these are kept for what must go on when the store is full. */
  readonly reserve: number;
}

export interface StoreRoom {
  /** Looks at the host now. */
  look(): Room;
  /** Whether there is so little that garbage is not kept for a while but removed at once. */
  readonly isShort: boolean;
  /** Whether writes are refused, or wait: every moment counts. */
  readonly isUrgent: boolean;
  /** Writes of guests that wait for room. */
  readonly waitingWrites: number;
}

/** Who watches nothing and keeps no reserve. */
export function plainRoom(store: string): StoreRoom {
  return {
    look: () => ({ free: freeSpace(store).free, reserve: 0 }),
    isShort: false,
    isUrgent: false,
    waitingWrites: 0,
  };
}

/** A manifest and its copy, folders that grow, what the host needs to note where all that is. */
const CHANGE_BYTES = 256 * KiB;
/** The two files of an empty delta. */
const DELTA_BYTES = 64 * KiB;

export interface Need {
  /** For the message: `take "web@monday"`. */
  readonly what: string;
  /** Deltas that are made. */
  readonly deltas: number;
  /** Bytes of data besides. */
  readonly data?: number;
  /** Whether it may use the reserve. */
  readonly fromReserve?: boolean;
}

/** @throws DiskError `failed`, ENOSPC. */
export function requireRoom(room: StoreRoom, need: Need): void {
  const { free, reserve } = room.look();
  const kept = need.fromReserve === true ? 0 : reserve;
  const bytes = CHANGE_BYTES + need.deltas * DELTA_BYTES + (need.data ?? 0);
  if (free - kept >= bytes) return;
  const usable = Math.max(0, free - kept);
  const reserved = usable < free ? ' besides the reserve' : '';
  const left = `${formatSize(usable)} are free${reserved}`;
  throw new DiskError(
    'failed',
    `cannot ${need.what}: it needs ${formatSize(bytes)} in the store's file system, where ${left}`,
    {
      errno: 'ENOSPC',
      hint: 'free space there, or delete snapshots or VMs that are not needed',
    },
  );
}

/**
 * What flushes a disk would wait with the writes that wait, and so would all who wait for it.
 * @throws DiskError `busy`.
 */
export function refuseWhileWritesWait({ waitingWrites }: StoreRoom, what: string): void {
  if (waitingWrites === 0) return;
  const writes = waitingWrites === 1 ? '1 write waits' : `${waitingWrites} writes wait`;
  const text = `cannot ${what} while ${writes} for room in the store`;
  throw new DiskError('busy', text, {
    errno: 'ENOSPC',
    hint: 'make room first: delete snapshots or VMs that are not needed',
  });
}
