/**
 * Starts QEMU for a VM: a process of its own that neither the daemon nor, when detached, the
 * command line has to outlive.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { DiskError } from '../common/errors.js';
import type { Accelerator } from './accelerator.js';
import { buildCommandLine, type ConsoleKind, type GuestHardware, QEMU } from './command-line.js';
import { qemuMissing } from './launch-errors.js';
import { type PluggedNics, plugNics } from './networks.js';
import { identify } from './processes.js';
import { Qmp } from './qmp.js';
import {
  type RunFolder,
  type RunLock,
  type RunRecord,
  runFiles,
  writeRecord,
} from './run-folder.js';

/** How long QEMU may take from its start to its first word. */
const GREETING_MS = 30_000;
const POLL_MS = 20;

export interface LaunchRequest {
  readonly hardware: GuestHardware;
  readonly storeId: string;
  readonly folder: RunFolder;
  readonly lock: RunLock;
  readonly accelerator: Accelerator;
  readonly console: ConsoleKind;
  /** The user's own arguments for QEMU. */
  readonly extra: readonly string[];
}

export interface LaunchedGuest {
  readonly record: RunRecord;
  /** What people are told. */
  readonly notes: readonly string[];
  /** Sends QEMU a signal. */
  kill(signal: NodeJS.Signals): void;
  /** Resolves with the exit status, or the signal, when QEMU has ended. */
  readonly ended: Promise<number | NodeJS.Signals>;
  /** Lets this process end before QEMU does. */
  detach(): void;
}

/**
 * Returns when the guest runs and its run folder says so.
 * @throws DiskError with QEMU's own words when it does not start; nothing is left running then.
 */
export async function launchGuest(request: LaunchRequest): Promise<LaunchedGuest> {
  const { storeId, hardware, folder, lock } = request;
  lock.clear(folder);
  const nics = plugNics({ storeId, nics: hardware.nics });
  const child = spawnQemu(request, nics);
  const ended = endOf(child);
  try {
    const record = await bringUp(request, child, ended, nics);
    return {
      record,
      notes: nics.notes,
      ended,
      kill: (signal) => void child.kill(signal),
      detach: () => child.unref(),
    };
  } catch (error) {
    child.kill('SIGKILL');
    await ended.catch(() => undefined);
    throw error;
  }
}

function spawnQemu(request: LaunchRequest, nics: PluggedNics): ChildProcess {
  const { folder, lock, console } = request;
  const args = buildCommandLine({ ...request, backends: nics.backends });
  const log = openSync(runFiles(folder).log, 'a', 0o600);
  try {
    const own =
      console === 'socket' ? (['ignore', log] as const) : (['inherit', 'inherit'] as const);
    return spawn(QEMU, args, {
      stdio: [...own, log, lock.fd],
      detached: console === 'socket',
    });
  } finally {
    closeSync(log);
  }
}

function endOf(child: ChildProcess): Promise<number | NodeJS.Signals> {
  const ended = new Promise<number | NodeJS.Signals>((resolve, reject) => {
    child.once('error', (error) => reject(qemuMissing(error)));
    child.once('close', (code, signal) => resolve(signal ?? code ?? -1));
  });
  // Whoever waits hears of it; nobody has to.
  ended.catch(() => undefined);
  return ended;
}

async function bringUp(
  request: LaunchRequest,
  child: ChildProcess,
  ended: Promise<unknown>,
  nics: PluggedNics,
): Promise<RunRecord> {
  const { folder, hardware, accelerator, console, extra } = request;
  const qmp = await greet(folder, ended);
  try {
    nics.connect();
    const identity = identify(child.pid ?? -1);
    if (identity === undefined) throw startFailed(folder);
    const record: RunRecord = {
      ...identity,
      vmId: hardware.id,
      started: new Date().toISOString(),
      accelerator,
      console: console === 'socket' ? 'socket' : 'terminal',
    };
    await writeRecord(folder, record);
    // Who says -S himself wants to start the guest himself.
    if (!extra.includes('-S')) await qmp.execute('cont');
    return record;
  } finally {
    qmp.close();
  }
}

/** Waits until QEMU answers. @throws DiskError `failed` when it ends before that. */
async function greet(folder: RunFolder, ended: Promise<unknown>): Promise<Qmp> {
  const over = ended.then(() => 'ended' as const);
  // It is heard of below; not while the connection is being tried.
  over.catch(() => undefined);
  const deadline = performance.now() + GREETING_MS;
  for (;;) {
    const answer = await Qmp.connect(runFiles(folder).qmp, GREETING_MS).catch(asDiskError);
    if (answer instanceof Qmp) return answer;
    // No socket yet, or QEMU is on its way out: a moment tells.
    if ((await Promise.race([over, sleep(POLL_MS)])) === 'ended') throw startFailed(folder);
    if (performance.now() >= deadline) throw answer;
  }
}

function asDiskError(error: unknown): DiskError {
  if (error instanceof DiskError) return error;
  throw error;
}

/** The last thing that QEMU said is why. */
function startFailed(folder: RunFolder): DiskError {
  const { log } = runFiles(folder);
  const lines = readFileSync(log, 'utf8').trim().split('\n');
  const said = (lines.at(-1) ?? '').replace(`${QEMU}: `, '');
  return new DiskError('failed', `QEMU did not start the guest: ${said || 'it said nothing'}`, {
    hint: `all that it said: ${log}`,
  });
}
