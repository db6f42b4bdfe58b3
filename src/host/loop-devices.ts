/** The host's loop devices: which stand on our files, and how to make one. Linux only. */
import { existsSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { DiskError, errnoName } from '../common/errors.js';
import { requireCommand } from './host-command.js';
import { namesIn, textOf } from './kernel-files.js';

const SYS_BLOCK = '/sys/block';
/** Block devices that hold anything. */
const PARTITIONS = '/proc/partitions';

export interface LoopDevice {
  /** `/dev/loop3`. */
  readonly device: string;
  /** `major:minor`, as mountinfo has it. */
  readonly number: string;
  /** Absolute, as the kernel knows it. */
  readonly file: string;
  readonly readOnly: boolean;
  /** Bytes into the file. */
  readonly offset: number;
  /** Bytes; 0: to the end. */
  readonly sizeLimit: number;
  /** Goes by itself with its last user: made by mount(8). */
  readonly autoclear: boolean;
  /** `major:minor` of the device itself and its partitions. */
  readonly numbers: readonly string[];
}

/** Whether any loop device holds data: one look, where one at each of them takes far longer. */
export function hasLoopsInUse(): boolean {
  return /\bloop\d+$/m.test(textOf(PARTITIONS) ?? 'loop0');
}

/** Loop devices that have a file, in no order. Reads /sys only, never the files themselves. */
export function listLoopDevices(): LoopDevice[] {
  return namesIn(SYS_BLOCK)
    .filter((name) => name.startsWith('loop'))
    .map(describe)
    .filter((each) => each !== undefined);
}

function describe(name: string): LoopDevice | undefined {
  const folder = `${SYS_BLOCK}/${name}`;
  // Most have no file: a question that costs less than a failure.
  if (!existsSync(`${folder}/loop`)) return undefined;
  const file = textOf(`${folder}/loop/backing_file`);
  const number = textOf(`${folder}/dev`);
  if (file === undefined || number === undefined) return undefined;
  const partitions = namesIn(folder)
    .filter((entry) => entry.startsWith(`${name}p`))
    .map((entry) => textOf(`${folder}/${entry}/dev`))
    .filter((each) => each !== undefined);
  return {
    device: `/dev/${name}`,
    number,
    file,
    readOnly: textOf(`${folder}/ro`) === '1',
    offset: Number(textOf(`${folder}/loop/offset`) ?? 0),
    sizeLimit: Number(textOf(`${folder}/loop/sizelimit`) ?? 0),
    autoclear: textOf(`${folder}/loop/autoclear`) === '1',
    numbers: [number, ...partitions],
  };
}

/**
 * The devices that stand on a file or on one of these devices, directly or through another loop
 * device.
 * @param isOurs tells the files that are meant.
 */
export function loopsOn(isOurs: (file: string) => boolean): LoopDevice[] {
  const all = listLoopDevices();
  const found = new Set<LoopDevice>();
  for (let grown = true; grown; ) {
    grown = false;
    for (const each of all) {
      if (found.has(each)) continue;
      const below = [...found].some((other) => isOn(each, other));
      if (!below && !isOurs(each.file)) continue;
      found.add(each);
      grown = true;
    }
  }
  return [...found];
}

/** Whether `upper` stands on `lower` or one of its partitions. */
export function isOn(upper: LoopDevice, lower: LoopDevice): boolean {
  if (upper.file === lower.device) return true;
  return (
    upper.file.startsWith(`${lower.device}p`) &&
    /^\d+$/.test(upper.file.slice(lower.device.length + 1))
  );
}

/**
 * Whether a mount stands on the device or a partition of it. A file system that spans devices
 * (btrfs) has a device number of its own; what it was mounted from tells then.
 */
export function isMountedFrom(
  mount: { readonly device: string; readonly source: string },
  { device, numbers }: LoopDevice,
): boolean {
  if (numbers.includes(mount.device) || mount.source === device) return true;
  return (
    mount.source.startsWith(`${device}p`) && /^\d+$/.test(mount.source.slice(device.length + 1))
  );
}

/**
 * Makes a loop device on a file, with its partitions.
 * @returns its path. @throws DiskError `failed`, `not-permitted`, `not-supported`.
 */
export async function makeLoopDevice(
  path: string,
  options: { readonly readOnly: boolean; readonly directIo: boolean },
): Promise<string> {
  const args = [
    '--find',
    '--show',
    '--partscan',
    ...(options.readOnly ? ['--read-only'] : []),
    ...(options.directIo ? ['--direct-io=on'] : []),
    path,
  ];
  return (await requireCommand(`cannot attach ${path}`, 'losetup', args)).trim();
}

/**
 * Brings everything written to a loop device down to its file, and the file's own data to the disk.
 * @throws DiskError `failed`.
 */
export async function flushLoopDevice({ device, readOnly }: LoopDevice): Promise<void> {
  if (readOnly) return;
  try {
    // On a pool thread: it is answered by the daemon's own I/O threads.
    const handle = await open(device, 'r');
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  } catch (error) {
    const errno = errnoName(error) ?? 'EIO';
    throw new DiskError('failed', `cannot flush ${device} (${errno})`, {
      errno,
      hint: `its data may be incomplete; to drop it all the same: losetup -d ${device}`,
    });
  }
}

/** Whether the device still stands on the same file. */
export function isThere({ device, file }: LoopDevice): boolean {
  return textOf(`${SYS_BLOCK}/${device.slice('/dev/'.length)}/loop/backing_file`) === file;
}
