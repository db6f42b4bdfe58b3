/** What is done to a guest that runs: ended, or held still for the instant of a snapshot. */
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { DiskError, errnoName } from '../common/errors.js';
import { readText } from '../storage/small-files.js';
import { GuestAgent } from './agent.js';
import { cancelMigration } from './migration.js';
import { type ProcessIdentity, waitForEnd } from './processes.js';
import { Qmp } from './qmp.js';
import { type RunFolder, runFiles } from './run-folder.js';

/** How long the guest may take to freeze its file systems before it is paused instead. */
const FREEZE_MS = 10_000;
const THAW_MS = 10_000;
/** How long QEMU may take to write back and exit. */
const QUIT_MS = 10_000;
const KILL_MS = 10_000;

/** A guest that nothing comes from. */
export interface Hold {
  /** What the snapshot is labelled with. */
  readonly consistency: string;
  /** Lets the guest go on. @throws DiskError when it does not. */
  release(): Promise<void>;
}

const FROZEN = 'frozen: the guest agent held its file systems still';
export const PAUSED = 'paused: the guest was stopped for the instant';

/**
 * Holds a guest still: by its agent, which also writes back its caches; else by pausing it.
 * A note in the run folder says so meanwhile, for the daemon that comes after one that died.
 * Never throws: a guest that cannot be held goes on, and the label says why.
 */
export async function holdStill(folder: RunFolder): Promise<Hold> {
  const { qmp: path, held } = runFiles(folder);
  try {
    writeFileSync(held, 'go on');
    return await Qmp.with(path, async (qmp) => {
      const agent = await freeze(folder, qmp);
      if (agent.frozen) return { consistency: FROZEN, release: () => letGo(folder, 'thaw') };
      const wasRunning = await isGoing(qmp);
      // Who paused it himself wants it paused afterwards, too.
      if (!wasRunning) writeFileSync(held, 'stay');
      // Stopping waits for what the guest has under way, and flushes its disks.
      if (wasRunning) await qmp.execute('stop', undefined, FREEZE_MS);
      const consistency = agent.why === '' ? PAUSED : `${PAUSED} (${agent.why})`;
      return { consistency, release: () => letGo(folder, wasRunning ? 'go on' : 'stay') };
    });
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    // It may have stopped although the answer did not come.
    const release = () => letGo(folder, 'go on');
    return { consistency: `crash-consistent: ${why}`, release };
  }
}

export async function isGoing(qmp: Qmp): Promise<boolean> {
  const { running } = (await qmp.execute('query-status')) as { running?: boolean };
  return running === true;
}

/** @returns whether the agent froze the file systems, and if there is one that did not, why. */
async function freeze(folder: RunFolder, qmp: Qmp): Promise<{ frozen: boolean; why: string }> {
  const ports = (await qmp.execute('query-chardev')) as {
    label: string;
    'frontend-open': boolean;
  }[];
  if (ports.find(({ label }) => label === 'agent')?.['frontend-open'] !== true) {
    return { frozen: false, why: '' };
  }
  let agent: GuestAgent | undefined;
  try {
    agent = await GuestAgent.connect(runFiles(folder).agent);
    const count = await agent.execute('guest-fsfreeze-freeze', FREEZE_MS);
    if (count !== 0) return { frozen: true, why: '' };
    return { frozen: false, why: 'the guest agent found no file system to freeze' };
  } catch (error) {
    // It may be about to freeze: the thaw that waits behind it in the channel undoes that.
    agent?.tell('guest-fsfreeze-thaw');
    if (error instanceof DiskError) return { frozen: false, why: error.message };
    throw error;
  } finally {
    agent?.close();
  }
}

/** Undoes a hold, and takes away the note of it. */
export async function letGo(folder: RunFolder, how: 'thaw' | 'go on' | 'stay'): Promise<void> {
  const { qmp: path, agent: agentPath, held } = runFiles(folder);
  if (how === 'go on') await Qmp.with(path, (qmp) => qmp.execute('cont'));
  if (how === 'thaw') {
    const agent = await GuestAgent.connect(agentPath);
    try {
      await agent.execute('guest-fsfreeze-thaw', THAW_MS);
    } finally {
      agent.close();
    }
  }
  rmSync(held, { force: true });
}

/** Lets a guest go that a daemon held still when it died. @returns whether there was one. */
export async function releaseAbandoned(folder: RunFolder): Promise<boolean> {
  const { held, qmp: path } = runFiles(folder);
  if (!existsSync(held)) return false;
  const stays = readText(held) === 'stay';
  const frozen = await Qmp.with(path, async (qmp) => {
    // Its memory may be on its way into a file.
    await cancelMigration(qmp);
    if (!stays && !(await isGoing(qmp))) await qmp.execute('cont');
    const ports = (await qmp.execute('query-chardev')) as {
      label: string;
      'frontend-open': boolean;
    }[];
    return ports.some((port) => port.label === 'agent' && port['frontend-open']);
  });
  await letGo(folder, frozen ? 'thaw' : 'stay');
  return true;
}

export interface StopRequest {
  readonly vm: string;
  /** At once, as by pulling the plug; otherwise the guest is asked. */
  readonly force: boolean;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

/**
 * Ends a guest.
 * @throws DiskError `busy` when it was asked and did not end in time, `interrupted`.
 */
export async function stopGuest(
  folder: RunFolder,
  guest: ProcessIdentity,
  { vm, force, timeoutMs, signal }: StopRequest,
): Promise<void> {
  const { qmp: path } = runFiles(folder);
  if (force) return endNow(path, guest, vm);
  await Qmp.with(path, (qmp) => qmp.execute('system_powerdown'));
  if (await waitForEnd(guest, timeoutMs, signal)) return;
  if (signal.aborted) {
    throw new DiskError('interrupted', `VM "${vm}" was asked to power off and still runs`);
  }
  throw new DiskError('busy', `VM "${vm}" did not power off within ${timeoutMs / 1000} s`, {
    errno: 'EBUSY',
    hint: `it may not listen to its power button; end it at once: layerdisk stop ${vm} --force`,
  });
}

async function endNow(path: string, guest: ProcessIdentity, vm: string): Promise<void> {
  try {
    await Qmp.with(path, (qmp) => qmp.execute('quit'));
    if (await waitForEnd(guest, QUIT_MS)) return;
  } catch (error) {
    // A QEMU that does not answer, or is gone already, is ended below.
    if (!(error instanceof DiskError)) throw error;
  }
  if (await waitForEnd(guest, 0)) return;
  try {
    process.kill(guest.pid, 'SIGKILL');
  } catch (error) {
    // Ended meanwhile, or another user's: who sees it end has no more to do.
    if (errnoName(error) === undefined) throw error;
  }
  if (await waitForEnd(guest, KILL_MS)) return;
  throw new DiskError('failed', `QEMU of VM "${vm}" (pid ${guest.pid}) does not end`, {
    hint: `is it waiting for its disks? See: ps -o stat,wchan ${guest.pid}`,
  });
}
