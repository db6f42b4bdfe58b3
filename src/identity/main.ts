/**
 * The process that mounts the file systems of a clone and clears them. It runs in a mount namespace
 * of its own (`reset.ts` starts it there): nobody else sees its mounts, and they are gone with it,
 * however it ends.
 *
 * Reads an order as JSON from its input, writes one answer as JSON to its output.
 */
import { readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { DiskError } from '../common/errors.js';
import { mountOptionsOf } from '../host/file-systems.js';
import { commandError, requireCommand, runCommand } from '../host/host-command.js';
import { isMountedFrom, loopsOn } from '../host/loop-devices.js';
import { type MountEntry, readMounts } from '../host/mountinfo.js';
import { type Clearing, clearMounted } from './clear.js';
import type { ResetAnswer, ResetOrder } from './reset.js';
import { describePlace, type FoundFileSystem, findFileSystems, noSystem } from './systems.js';

const STANDARD_INPUT = 0;
/** The top of a btrfs, where its subvolumes are. */
const TOP_SUBVOLUME = 'subvolid=5';

async function main(): Promise<ResetAnswer> {
  const order = JSON.parse(readFileSync(STANDARD_INPUT, 'utf8')) as ResetOrder;
  await dropCopies(order);
  const clearing: Clearing = { cleared: [], left: [] };
  let isSystem = false;
  for (const found of await findFileSystems(order.vm, order.disks)) {
    const isBtrfs = found.type === 'btrfs';
    const here = await visit(order, found, isBtrfs ? [TOP_SUBVOLUME] : [], clearing);
    // Some mount a subvolume deep below by default.
    const below = isBtrfs && !here && (await visit(order, found, [], clearing));
    isSystem ||= here || below;
  }
  if (!isSystem) throw noSystem(order.vm);
  return { outcome: clearing };
}

/**
 * The namespace began with a copy of every mount. Copies of other disks would keep them in use
 * after their owner has unmounted them.
 */
async function dropCopies({ disks }: ResetOrder): Promise<void> {
  const exposed = disks.map(({ path }) => dirname(dirname(path)));
  const loops = loopsOn((file) => exposed.some((folder) => file.startsWith(`${folder}/`)));
  const isCopy = (mount: MountEntry) => loops.some((loop) => isMountedFrom(mount, loop));
  for (const { mountpoint } of readMounts().filter(isCopy).reverse()) {
    await runCommand('umount', ['--lazy', '--', mountpoint]);
  }
}

async function visit(
  { vm, directory }: ResetOrder,
  found: FoundFileSystem,
  more: readonly string[],
  clearing: Clearing,
): Promise<boolean> {
  const { disk, place, type } = found;
  const what = `${describePlace(found)} of "${vm}" (${type})`;
  const size = place.size === 0 ? [] : [`sizelimit=${place.size}`];
  const options = [
    ...['rw', 'nosuid', 'nodev', 'noexec', 'noatime', 'nosymfollow'],
    ...[...mountOptionsOf(type), ...more],
    ...['loop', `offset=${place.offset}`, ...size],
  ];
  const args = ['-t', type, '-o', options.join(','), '--', disk.path, directory];
  const mounted = await runCommand('mount', args);
  if (mounted.code !== 0) throw commandError(`cannot mount ${what}`, 'mount', mounted);
  try {
    return clearMounted(directory, clearing);
  } finally {
    // Writes everything back. Left undone it would be done by the end of the namespace, unseen.
    await requireCommand(`cannot unmount ${what}`, 'umount', ['--', directory]);
  }
}

/** @throws what is a bug. */
function asAnswer(error: unknown): ResetAnswer {
  if (error instanceof DiskError) return { error: error.toJSON() };
  throw error;
}

process.stdout.write(JSON.stringify(await main().catch(asAnswer)));
