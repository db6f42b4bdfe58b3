/**
 * Starts QEMU for a VM: a process of its own that neither the daemon nor, when detached, the
 * command line has to outlive.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { DiskError } from '../common/errors.js';
import { openStored } from '../storage/stored-file.js';
import type { Accelerator } from './accelerator.js';
import { buildCommandLine, type ConsoleKind, type GuestHardware, QEMU } from './command-line.js';
import { qemuMissing, startFailed } from './launch-errors.js';
import { type PluggedNics, plugNics } from './networks.js';
import { identify } from './processes.js';
import { Qmp } from './qmp.js';
import { readMemory, type SavedMemory } from './resume.js';
import {
  type RunFolder,
  type RunHardware,
  type RunLock,
  type RunRecord,
  runFiles,
  writeRecord,
} from './run-folder.js';

/** How long QEMU may take from its start to its first word. */
const GREETING_MS = 30_000;
const POLL_MS = 20;
/** How long QEMU may take to end after it closed its socket. */
const END_MS = 10_000;

export interface LaunchRequest {
  readonly hardware: GuestHardware;
  readonly storeId: string;
  readonly folder: RunFolder;
  readonly lock: RunLock;
  readonly accelerator: Accelerator;
  readonly console: ConsoleKind;
  /** The user's own arguments for QEMU. */
  readonly extra: readonly string[];
  /** What it goes on with; absent for a cold start. */
  readonly memory?: SavedMemory;
  /** Runs when QEMU has all of the memory, right before the guest goes on. */
  readonly onMemoryUsed?: () => Promise<void>;
  /** Ends QEMU again while it is being started. */
  readonly signal: AbortSignal;
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
 * @throws DiskError with QEMU's own words when it does not start, `interrupted`; nothing is left
 * running then.
 */
export async function launchGuest(request: LaunchRequest): Promise<LaunchedGuest> {
  const { storeId, hardware, folder, lock, signal } = request;
  lock.clear(folder);
  const nics = plugNics({ storeId, nics: hardware.nics });
  const child = spawnQemu(request, nics);
  const ended = endOf(child);
  const giveUp = () => void child.kill('SIGKILL');
  signal.addEventListener('abort', giveUp);
  try {
    const record = await bringUp(request, child, ended, nics);
    signal.throwIfAborted();
    return {
      record,
      notes: nics.notes,
      ended,
      kill: (signal) => void child.kill(signal),
      detach: () => child.unref(),
    };
  } catch (error) {
    giveUp();
    await ended.catch(() => undefined);
    if (!signal.aborted) throw error;
    throw new DiskError('interrupted', `starting the guest of "${hardware.name}": cancelled`);
  } finally {
    signal.removeEventListener('abort', giveUp);
  }
}

/** The descriptor by which QEMU inherits the file of its memory: the first after its lock. */
const MEMORY_FD = 4;

function spawnQemu(request: LaunchRequest, nics: PluggedNics): ChildProcess {
  const { folder, lock, console, memory } = request;
  const machine = memory === undefined ? {} : { machine: memory.setup.machine };
  const args = buildCommandLine({ ...request, ...machine, backends: nics.backends });
  const log = openSync(runFiles(folder).log, 'a', 0o600);
  const file = memory === undefined ? undefined : openStored(memory.path, 'r');
  try {
    const own =
      console === 'socket' ? (['ignore', log] as const) : (['inherit', 'inherit'] as const);
    return spawn(QEMU, args, {
      stdio: [...own, log, lock.fd, ...(file === undefined ? [] : [file])],
      detached: console === 'socket',
      ...(memory === undefined ? {} : { cwd: memory.setup.folder }),
    });
  } finally {
    closeSync(log);
    if (file !== undefined) closeSync(file);
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
  const { folder, hardware, accelerator, console, extra, memory } = request;
  const qmp = await greet(request, ended);
  try {
    nics.connect();
    if (memory !== undefined) await takeMemory(qmp, request, ended);
    const identity = identify(child.pid ?? -1);
    if (identity === undefined) throw startFailed(request);
    const record: RunRecord = {
      ...identity,
      vmId: hardware.id,
      started: new Date().toISOString(),
      accelerator,
      console: console === 'socket' ? 'socket' : 'terminal',
      hardware: hardwareOf(hardware),
      arguments: extra,
      folder: memory?.setup.folder ?? process.cwd(),
    };
    await writeRecord(folder, record);
    await request.onMemoryUsed?.();
    // Who says -S himself wants to start the guest himself.
    if (!extra.includes('-S')) await qmp.execute('cont');
    return record;
  } finally {
    qmp.close();
  }
}

function hardwareOf({ vcpus, memory, nics, disks }: GuestHardware): RunHardware {
  return { vcpus, memory, nics, disks: disks.map(({ name }) => name) };
}

async function takeMemory(
  qmp: Qmp,
  request: LaunchRequest,
  ended: Promise<unknown>,
): Promise<void> {
  try {
    await readMemory(qmp, MEMORY_FD);
  } catch (error) {
    if (!(error instanceof DiskError)) throw error;
    // It ends when it cannot use the memory; what it said is in its log by then.
    const over = ended.then(() => true);
    if (await Promise.race([over, sleep(END_MS, false)])) throw startFailed(request);
    throw error;
  }
}

/** Waits until QEMU answers. @throws DiskError `failed` when it ends before that. */
async function greet(request: LaunchRequest, ended: Promise<unknown>): Promise<Qmp> {
  const over = ended.then(() => 'ended' as const);
  // It is heard of below; not while the connection is being tried.
  over.catch(() => undefined);
  const deadline = performance.now() + GREETING_MS;
  for (;;) {
    const answer = await Qmp.connect(runFiles(request.folder).qmp, GREETING_MS).catch(asDiskError);
    if (answer instanceof Qmp) return answer;
    // No socket yet, or QEMU is on its way out: a moment tells.
    if ((await Promise.race([over, sleep(POLL_MS)])) === 'ended') throw startFailed(request);
    if (performance.now() >= deadline) throw answer;
  }
}

function asDiskError(error: unknown): DiskError {
  if (error instanceof DiskError) return error;
  throw error;
}
