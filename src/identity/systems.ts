/** The file systems on a VM's disks in which a Linux system may lie. */
import { closeSync, openSync } from 'node:fs';
import { DiskError, errnoName } from '../common/errors.js';
import { type Place, probeType } from '../host/file-systems.js';
import { listPartitions } from '../host/partitions.js';

/** The raw file of a disk. */
export interface RawDisk {
  readonly name: string;
  readonly path: string;
}

export interface FoundFileSystem {
  readonly disk: RawDisk;
  /** Absent: the whole disk is one file system. */
  readonly partition?: number;
  readonly place: Place;
  readonly type: string;
}

const LINUX_TYPES = ['ext2', 'ext3', 'ext4', 'xfs', 'btrfs'];
/** What a system may lie in where it can't be reached, in words. */
const CLOSED_TYPES: Readonly<Record<string, string>> = {
  LVM2_member: 'a physical volume of LVM',
  LVM1_member: 'a physical volume of LVM',
  crypto_LUKS: 'encrypted (LUKS)',
  linux_raid_member: 'part of a software RAID',
};
const USAGES = 'filesystem,raid,crypto';

/**
 * Looks at partition tables and signatures only; mounts nothing.
 * @throws DiskError `not-supported` when there is none, or a part that may hold one is closed.
 */
export async function findFileSystems(
  vm: string,
  disks: readonly RawDisk[],
): Promise<FoundFileSystem[]> {
  const found: FoundFileSystem[] = [];
  for (const disk of disks) {
    refuseUnreadable(disk);
    const partitions = await listPartitions(disk.path);
    const places = partitions.length === 0 ? [undefined] : partitions;
    for (const partition of places) {
      const place = partition ?? { offset: 0, size: 0 };
      const type = await probeType(disk.path, place, USAGES);
      const where = partition === undefined ? {} : { partition: partition.number };
      refuseClosed(vm, disk, where, type);
      if (!LINUX_TYPES.includes(type)) continue;
      found.push({ disk, ...where, place: { offset: place.offset, size: place.size }, type });
    }
  }
  if (found.length === 0) throw noSystem(vm);
  return found;
}

export function noSystem(vm: string): DiskError {
  return new DiskError('not-supported', `no Linux system was found on the disks of "${vm}"`, {
    hint: 'looked for: /etc and /usr in ext2 to ext4, xfs or btrfs, on partitions or whole disks',
  });
}

/** How people are told where a file system lies. */
export function describePlace({ disk, partition }: Pick<FoundFileSystem, 'disk' | 'partition'>) {
  return partition === undefined ? disk.name : `${disk.name} partition ${partition}`;
}

function refuseClosed(
  vm: string,
  disk: RawDisk,
  where: { readonly partition?: number },
  type: string,
): void {
  const closed = CLOSED_TYPES[type];
  if (closed === undefined) return;
  const what = describePlace({ disk, ...where });
  throw new DiskError('not-supported', `${what} of "${vm}" is ${closed}: it is not opened`, {
    hint: 'clear the identity inside the guest instead: empty /etc/machine-id, new SSH host keys',
  });
}

/** A disk that cannot be opened would be one on which nothing is found. */
function refuseUnreadable({ path }: RawDisk): void {
  try {
    closeSync(openSync(path, 'r'));
  } catch (error) {
    const errno = errnoName(error) ?? 'EIO';
    const isClosed = errno === 'EACCES' || errno === 'EPERM';
    throw new DiskError(
      isClosed ? 'not-permitted' : 'failed',
      `${path} cannot be read (${errno})`,
      {
        errno,
        hint: isClosed
          ? 'the mount of another user is closed to root, too, without --allow-other'
          : 'daemon.log in the store says why',
      },
    );
  }
}
