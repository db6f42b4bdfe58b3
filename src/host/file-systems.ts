/** What lies on a disk, as blkid (util-linux) tells it, and how to mount it without trusting it. */
import { runCommand } from './host-command.js';

/** A part of a disk, bytes; size 0: all that follows. */
export interface Place {
  readonly offset: number;
  readonly size: number;
}

/**
 * The type of what lies there as blkid knows it (`ext4`, `LVM2_member`); empty where it finds
 * nothing, or more than one thing. Does not block the thread: the disk may be our own.
 * @param usages what to look for: `filesystem`, `raid` (LVM, too), `crypto`, with commas.
 */
export async function probeType(path: string, place: Place, usages: string): Promise<string> {
  const tag = ['--output', 'value', '--match-tag', 'TYPE'];
  const size = place.size === 0 ? [] : ['--size', `${place.size}`];
  const args = ['--probe', '--usages', usages, '--offset', `${place.offset}`, ...size, ...tag];
  return (await runCommand('blkid', [...args, path])).stdout.trim();
}

/**
 * Mount options that a type needs: a second XFS of one UUID, which every snapshot and clone of a
 * mounted disk is, is refused otherwise; and an ext file system may say that an error in it is to
 * stop the whole host.
 */
export function mountOptionsOf(type: string): string[] {
  if (type === 'xfs') return ['nouuid'];
  return /^ext[234]$/.test(type) ? ['errors=remount-ro'] : [];
}
