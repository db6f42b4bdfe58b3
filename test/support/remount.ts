/** Cutting the power of a file system, and having it back. */

import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { runProgram, tool } from './run-program.js';

const PATIENCE_MS = 120_000;
const RETRY_MS = 100;

/** From here on nothing reaches the disk, and what was not synced is lost. */
export async function cutPower(on: string): Promise<void> {
  await tool('xfs_io', ['-x', '-c', 'shutdown', on]);
}

/**
 * The power comes back. A process of somebody else's that has its own view of all mounts may keep
 * the dead file system alive for a while: mounting finds that one again then.
 */
export async function mountAnew(device: string, on: string): Promise<void> {
  const end = performance.now() + PATIENCE_MS;
  for (;;) {
    await tool('mount', [device, on]);
    const probe = await runProgram('touch', [join(on, 'probe')]);
    if (probe.code === 0) return;
    if (performance.now() > end) throw new Error(`${on} stays dead: ${probe.stderr}`);
    await tool('umount', [on]);
    await sleep(RETRY_MS);
  }
}
