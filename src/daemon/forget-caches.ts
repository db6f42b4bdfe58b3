/** What a daemon that took over makes the kernel forget: what it had cached of restored disks. */
import type { Transport } from '../transport/transport.js';
import type { Exposure } from '../vm/exposure.js';
import type { OpenFiles } from './open-files.js';

/** Restores that were committed so long ago are known to the kernel, milliseconds. */
const RECENT_MS = 600_000;

/**
 * The daemon before this one may have died between a restore and making the kernel forget what it
 * had cached of the disk.
 *
 * Nobody has a disk open while it is restored, so what was open then is left alone: a write to it
 * that waits for room keeps its pages locked, and to forget those would wait for it, for ever,
 * in the one process that could make room, and in a way that not even a kill ends.
 */
export async function forgetWhatRestoresChanged(
  exposure: Exposure,
  files: OpenFiles,
  transport: Transport,
): Promise<void> {
  for (const { number, disks } of exposure.changedSince(Date.now() - RECENT_MS)) {
    for (const { node } of disks) {
      const id = { hi: number, lo: node };
      if (!files.wasInherited(id)) await transport.invalidate(id);
    }
  }
}
