/**
 * The folder of a guest that runs: its sockets, its lock, and a note of which process it is.
 *
 * INVARIANT: whether a guest runs is never read off a file's being there. The note counts when
 * exactly that process lives; the lock is held by QEMU itself, which inherits it open, so it is
 * free the moment QEMU ends, however it ends.
 */
import { closeSync, constants, fstatSync, openSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { DiskError, errnoName } from '../common/errors.js';
import { MAX_SOCKET_PATH_BYTES } from '../common/places.js';
import { hostFiles, replaceFile } from '../storage/atomic-write.js';
import { flock, LOCK_EX, LOCK_SH } from '../storage/libc.js';
import { readText } from '../storage/small-files.js';
import { openStored } from '../storage/stored-file.js';
import type { Accelerator } from './accelerator.js';
import type { GuestNic } from './command-line.js';
import { isRunning, type ProcessIdentity } from './processes.js';

const AS_THE_DAEMON = 'run as the user the daemon runs as';

/** Absolute path of one VM's run folder. */
export type RunFolder = string;

export interface RunFiles {
  readonly lock: string;
  readonly record: string;
  readonly qmp: string;
  readonly agent: string;
  readonly console: string;
  /** What QEMU says on stderr. */
  readonly log: string;
  /** There while a guest is held still for a snapshot. */
  readonly held: string;
}

export function runFiles(folder: RunFolder): RunFiles {
  return {
    lock: join(folder, 'lock'),
    record: join(folder, 'run.json'),
    qmp: join(folder, 'qmp'),
    agent: join(folder, 'agent'),
    console: join(folder, 'console'),
    log: join(folder, 'qemu.log'),
    held: join(folder, 'held'),
  };
}

/**
 * What a guest writes here would be of the user who starts it: the daemon could not read which
 * process it is, nor reach its sockets.
 * @throws DiskError `not-permitted` for root where the daemon is another user's.
 */
export function refuseOtherUser(folder: RunFolder, vm: string): void {
  const owner = statSync(folder, { throwIfNoEntry: false })?.uid;
  if (owner === undefined || owner === process.geteuid?.()) return;
  throw new DiskError('not-permitted', `cannot run "${vm}": its daemon is uid ${owner}'s`, {
    hint: AS_THE_DAEMON,
  });
}

/** @throws DiskError `usage` when sockets in this folder could not be bound. */
export function checkRunFolder(folder: RunFolder): void {
  const longest = Buffer.byteLength(runFiles(folder).console);
  if (longest <= MAX_SOCKET_PATH_BYTES) return;
  throw new DiskError('usage', `${folder} is too long a path for the sockets of a guest`, {
    hint: `keep the store at a path that is ${longest - MAX_SOCKET_PATH_BYTES} bytes shorter`,
  });
}

/** Which process a guest is. */
export interface RunRecord extends ProcessIdentity {
  readonly vmId: string;
  /** ISO 8601. */
  readonly started: string;
  readonly accelerator: Accelerator;
  readonly console: 'terminal' | 'socket';
  /** What it runs with, whatever the VM is configured as by now. */
  readonly hardware: RunHardware;
  /** What QEMU was given besides. */
  readonly arguments: readonly string[];
  /** The folder that relative paths in those start from. */
  readonly folder: string;
}

export interface RunHardware {
  readonly vcpus: number;
  /** Bytes. */
  readonly memory: number;
  readonly nics: readonly GuestNic[];
  /** Names of the disks, in order. */
  readonly disks: readonly string[];
}

/** The guest of this folder, if it runs. */
export function readRunning(folder: RunFolder): RunRecord | undefined {
  let record: RunRecord;
  try {
    record = JSON.parse(readText(runFiles(folder).record) ?? '') as RunRecord;
  } catch {
    // None yet, or not ours: only a note of a process that lives would count.
    return undefined;
  }
  if (typeof record !== 'object' || record === null || typeof record.pid !== 'number') {
    return undefined;
  }
  return isRunning(record) ? record : undefined;
}

export async function writeRecord(folder: RunFolder, record: RunRecord): Promise<void> {
  const text = `${JSON.stringify(record, null, 2)}\n`;
  await replaceFile(hostFiles, runFiles(folder).record, text, 'run-record');
}

/** How long a lock that is only being looked at may hold up who wants it. */
const LOCK_PATIENCE_MS = 1000;
const LOCK_POLL_MS = 20;

/**
 * The daemon makes it, so that it can look at one that root takes, too. @throws the host's error.
 */
export function makeLock(folder: RunFolder): void {
  closeSync(openSync(runFiles(folder).lock, constants.O_RDWR | constants.O_CREAT, 0o600));
}

/** The right to run the guest of a folder, as an open descriptor. */
export class RunLock {
  readonly fd: number;
  #released = false;

  private constructor(fd: number) {
    this.fd = fd;
  }

  /**
   * @param vm for the message.
   * @throws DiskError `busy` when the guest runs or is just being started.
   */
  static async acquire(folder: RunFolder, vm: string): Promise<RunLock> {
    const end = performance.now() + LOCK_PATIENCE_MS;
    for (;;) {
      const fd = openLock(folder, vm);
      if (flock(fd, LOCK_EX)) {
        if (isStillThere(fd, folder)) return new RunLock(fd);
        closeSync(fd);
        throw deletedMeanwhile(vm);
      }
      closeSync(fd);
      if (performance.now() >= end) throw alreadyRuns(folder, vm);
      await sleep(LOCK_POLL_MS);
    }
  }

  /** Takes away what an earlier run left. */
  clear(folder: RunFolder): void {
    const { record, qmp, agent, console, log, held } = runFiles(folder);
    for (const path of [record, qmp, agent, console, log, held]) rmSync(path, { force: true });
  }

  /** Closes this process's end; QEMU keeps its own. */
  release(): void {
    if (this.#released) return;
    this.#released = true;
    closeSync(this.fd);
  }
}

function openLock(folder: RunFolder, vm: string): number {
  try {
    return openSync(runFiles(folder).lock, constants.O_RDWR | constants.O_CREAT, 0o600);
  } catch (error) {
    const errno = errnoName(error) ?? 'EIO';
    if (errno === 'ENOENT') throw deletedMeanwhile(vm);
    const denied = errno === 'EACCES' || errno === 'EPERM';
    throw new DiskError(
      denied ? 'not-permitted' : 'failed',
      `cannot run "${vm}": cannot open ${runFiles(folder).lock} (${errno})`,
      { errno, hint: AS_THE_DAEMON },
    );
  }
}

function deletedMeanwhile(vm: string): DiskError {
  return new DiskError('not-found', `VM "${vm}" was deleted in the meantime`);
}

function isStillThere(fd: number, folder: RunFolder): boolean {
  const path = statSync(runFiles(folder).lock, { throwIfNoEntry: false });
  return path?.ino === fstatSync(fd).ino;
}

function alreadyRuns(folder: RunFolder, vm: string): DiskError {
  const running = readRunning(folder);
  const how = running === undefined ? 'is just being started' : `already runs (pid ${running.pid})`;
  return new DiskError('busy', `VM "${vm}" ${how}`, {
    errno: 'EBUSY',
    hint: `end it first: layerdisk stop ${vm}`,
  });
}

/** What a folder says of its guest: it runs, somebody is starting or ending it, or neither. */
export type RunState = RunRecord | 'in-between' | undefined;

export function readState(folder: RunFolder): RunState {
  const running = readRunning(folder);
  if (running !== undefined) return running;
  let fd: number;
  try {
    fd = openStored(runFiles(folder).lock, 'r');
  } catch (error) {
    if (errnoName(error) === 'ENOENT') return undefined;
    throw error;
  }
  try {
    return flock(fd, LOCK_SH) ? undefined : 'in-between';
  } finally {
    closeSync(fd);
  }
}
