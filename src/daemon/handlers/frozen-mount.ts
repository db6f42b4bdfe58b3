/**
 * A mounted file system that stands still for the instant of a snapshot, so that the snapshot is
 * clean.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readlinkSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { DiskError } from '../../common/errors.js';
import { shellWord } from '../../common/shell-word.js';
import { COMMAND_ENVIRONMENT, requireCommand } from '../../host/host-command.js';

/** How long a file system is given to stand still, and how long it does at most. */
const FREEZE_TIMEOUT_MS = 10_000;
const LONGEST_FREEZE_S = 10;

/**
 * Freezes, says so, and thaws when its input ends: a process of its own, so that the file system
 * thaws also when the daemon dies or hangs.
 */
const SCRIPT = `
fsfreeze --freeze "$1" || exit 1
echo frozen
timeout ${LONGEST_FREEZE_S} cat > /dev/null
fsfreeze --unfreeze "$1"
`;

export interface FrozenMount {
  /** @throws DiskError `failed` when it stays frozen. */
  thaw(): Promise<void>;
}

/**
 * Writes a file system back and stops all writes to it.
 * @returns undefined when it can't be frozen: some have no such thing, one may be frozen already,
 * and one that this process itself writes to must not be.
 */
export async function freezeMount(mountpoint: string): Promise<FrozenMount | undefined> {
  if (isUsedByThisProcess(mountpoint)) return undefined;
  const child = spawn('sh', ['-c', SCRIPT, 'sh', mountpoint], {
    env: COMMAND_ENVIRONMENT,
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  // A process that is gone already can't be told to thaw; its exit says all there is to say.
  child.stdin?.on('error', () => undefined);
  const exited = new Promise<void>((resolve) => {
    child.once('exit', () => resolve());
    child.once('error', () => resolve());
  });
  if (await standsStill(child, exited)) return { thaw: () => thaw(mountpoint, child, exited) };
  // If it freezes after all, it thaws at once.
  child.stdin?.end();
  return undefined;
}

async function standsStill(child: ChildProcess, exited: Promise<void>): Promise<boolean> {
  const stop = new AbortController();
  const said = child.stdout === null ? exited : once(child.stdout, 'data', { signal: stop.signal });
  const late = delay(FREEZE_TIMEOUT_MS, undefined, { signal: stop.signal });
  try {
    return await Promise.race([
      said.then((chunks) => String(chunks).startsWith('frozen')),
      exited.then(() => false),
      late.then(() => false),
    ]);
  } finally {
    stop.abort();
    // Both end by the abort, which nobody waits for any more.
    said.then(undefined, () => undefined);
    late.catch(() => undefined);
  }
}

async function thaw(mountpoint: string, child: ChildProcess, exited: Promise<void>): Promise<void> {
  child.stdin?.end();
  await exited;
  if (child.exitCode === 0) return;
  try {
    await requireCommand(`cannot thaw ${mountpoint}`, 'fsfreeze', ['--unfreeze', mountpoint]);
  } catch (error) {
    throw new DiskError('failed', `the file system at ${mountpoint} may still be frozen`, {
      hint: `fsfreeze --unfreeze ${shellWord(mountpoint)}`,
      cause: error,
    });
  }
}

/**
 * Whether it holds files that this process has open, such as a store: freezing it would stop
 * ourselves.
 */
function isUsedByThisProcess(mountpoint: string): boolean {
  return readdirSync('/proc/self/fd').some((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith(`${mountpoint}/`);
    } catch {
      // The descriptor of this very look, closed again.
      return false;
    }
  });
}
