/** The daemon as a process: starting it, hearing that it is ready, seeing that it is gone. */
import { type ChildProcess, spawn } from 'node:child_process';
import type { EventEmitter } from 'node:events';
import { closeSync, constants, mkdirSync, openSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { DiskError, type DiskErrorJson, ERROR_CODES, errnoName } from '../common/errors.js';
import type { Places } from '../common/places.js';
import { READY_EVENT } from '../common/ready-event.js';
import { requireSafeFolder, STORE_SAFETY } from '../common/safe-folder.js';
import { threadsOfDead } from '../host/kernel-files.js';
import { onInterrupt } from './interrupt.js';

/**
 * The descriptor on which the daemon writes `{"ready":true}` or `{"error":DiskErrorJson}`, one
 * line, once.
 */
const READY_FD = 3;
const MAX_READY_BYTES = 64 * 1024;
const POLL_MS = 50;

export interface DaemonOptions extends Places {
  readonly transport?: string;
  readonly threads?: number;
  readonly allowOther?: boolean;
  readonly verifyReads?: boolean;
  readonly acceptCopy?: boolean;
  /** Bytes. */
  readonly reserve?: number;
  readonly onFull?: string;
  readonly supervise?: boolean;
}

/** The program that `daemon start` runs. */
export function daemonProgram(): string {
  return fileURLToPath(new URL('../daemon/main.js', import.meta.url));
}

/** Its arguments, all said outright: the daemon itself has no defaults for places. */
export function daemonArguments(options: DaemonOptions): string[] {
  return [
    ...['--store', options.store],
    ...['--socket', options.socket],
    ...['--mountpoint', options.mountpoint],
    ...(options.transport === undefined ? [] : ['--transport', options.transport]),
    ...(options.threads === undefined ? [] : ['--threads', String(options.threads)]),
    ...(options.allowOther === true ? ['--allow-other'] : []),
    ...(options.verifyReads === true ? ['--verify-reads'] : []),
    ...(options.acceptCopy === true ? ['--accept-copy'] : []),
    ...(options.reserve === undefined ? [] : ['--reserve', String(options.reserve)]),
    ...(options.onFull === undefined ? [] : ['--on-full', options.onFull]),
    ...(options.supervise === false ? ['--no-supervise'] : []),
  ];
}

/**
 * Becomes the daemon: it runs in this process, with its log on stderr, and signals reach it
 * directly.
 * @returns at its end, unless that ends the process.
 * @throws DiskError as the daemon gave it when it did not start.
 */
export async function runInForeground(program: string, options: DaemonOptions): Promise<void> {
  process.argv = [process.execPath, program, ...daemonArguments(options)];
  let refused: DiskError | undefined;
  const emitter: EventEmitter = process;
  emitter.once(READY_EVENT, (line: string) => {
    refused = readReadyLine(line);
  });
  createRequire(import.meta.url)(program);
  await new Promise((done) => emitter.once('beforeExit', done));
  if (refused !== undefined) throw refused;
}

/**
 * Starts the daemon in the background and returns when it is ready; ctrl-C stops it again. Its log
 * is `daemon.log` in the store.
 * @throws DiskError as the daemon gave it; `failed` when it ended without a word.
 */
export async function startInBackground(program: string, options: DaemonOptions): Promise<void> {
  const logFile = join(options.store, 'daemon.log');
  const log = openLog(options.store, logFile);
  let child: ChildProcess;
  try {
    child = spawn(
      process.execPath,
      [program, ...daemonArguments(options), '--ready-fd', String(READY_FD)],
      { cwd: '/', detached: true, stdio: ['ignore', log, log, 'pipe'] },
    );
  } finally {
    closeSync(log);
  }
  const cancelled = new AbortController();
  const release = onInterrupt(() => {
    cancelled.abort();
    child.kill('SIGTERM');
  });
  try {
    await untilReady(child, logFile);
  } catch (error) {
    // It may not have ended by itself, and nobody would know of it.
    child.kill('SIGTERM');
    if (!cancelled.signal.aborted) throw error;
    throw new DiskError('interrupted', 'the daemon was not started', { cause: error });
  } finally {
    release();
    (child.stdio[READY_FD] as Readable | null | undefined)?.destroy();
    child.unref();
  }
}

const HINTS: Readonly<Record<string, string>> = {
  EROFS: 'its file system is read-only: remount it, or copy the store to another place',
  ENOSPC: 'its file system is full: free some space there',
  EDQUOT: 'your quota there is used up: free some space',
  ENOTDIR: 'a file is in the way: name a folder with --store DIR',
  EEXIST: 'a file is in the way: name a folder with --store DIR',
  EISDIR: 'a folder is in its place: move that away',
  ENXIO: 'a FIFO or a socket is in its place: move that away',
};

function isDenied(errno: string): boolean {
  return errno === 'EROFS' || errno === 'EACCES' || errno === 'EPERM';
}

function openLog(store: string, logFile: string): number {
  try {
    mkdirSync(store, { recursive: true, mode: 0o700 });
    // A log that somebody else made there may lead anywhere.
    requireSafeFolder(store, statSync(store), STORE_SAFETY);
    // Of a FIFO that nobody reads, open(2) would wait for somebody who does.
    const { O_WRONLY, O_APPEND, O_CREAT, O_NONBLOCK } = constants;
    return openSync(logFile, O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK, 0o600);
  } catch (error) {
    if (error instanceof DiskError) throw error;
    const errno = errnoName(error) ?? String(error);
    const code = isDenied(errno) ? 'not-permitted' : 'failed';
    throw new DiskError(code, `cannot open ${logFile}, the daemon's log (${errno})`, {
      hint: HINTS[errno] ?? 'run as root, or name a folder of yours: --store DIR',
      cause: error,
    });
  }
}

function untilReady(child: ChildProcess, logFile: string): Promise<void> {
  const pipe = child.stdio[READY_FD] as Readable;
  let text = '';
  return new Promise((done, fail) => {
    const silent = (how: string) =>
      new DiskError('failed', `the daemon ended before it was ready (${how})`, {
        hint: `see its log: ${logFile}`,
      });
    child.once('error', (error) => fail(silent(error.message)));
    // Not 'exit': what it wrote before it ended may still be in the pipe.
    child.once('close', (code, signal) => fail(silent(signal ?? `exit code ${code}`)));
    pipe.setEncoding('utf8');
    pipe.on('data', (chunk: string) => {
      text += chunk;
      const end = text.indexOf('\n');
      if (end === -1 && text.length < MAX_READY_BYTES) return;
      const error = readReadyLine(text.slice(0, end));
      if (error === undefined) done();
      else fail(error);
    });
  });
}

/** @returns undefined for `ready`, else what went wrong. */
function readReadyLine(line: string): DiskError | undefined {
  try {
    const message = JSON.parse(line) as { ready?: unknown; error?: DiskErrorJson };
    if (message.ready === true) return undefined;
    if (message.error !== undefined && ERROR_CODES.includes(message.error.code)) {
      return DiskError.fromJSON(message.error);
    }
  } catch {
    // Said below: whatever it is, it is not the agreed line.
  }
  return new DiskError('failed', 'the daemon did not say whether it is ready', {
    hint: 'client and daemon may be of different versions',
  });
}

/** Waits until a process has ended. @returns whether it did within `timeoutMs`. */
export async function waitForExit(pid: number, timeoutMs: number): Promise<boolean> {
  const end = performance.now() + timeoutMs;
  while (isAlive(pid)) {
    if (performance.now() >= end) return false;
    await sleep(POLL_MS);
  }
  return true;
}

/**
 * One that is dead counts as gone although its parent has not asked for how it ended; threads that
 * still end count as alive: they keep the mount.
 */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return threadsOfDead(pid)?.length !== 0;
  } catch (error) {
    // EPERM: it is there, and another user's.
    return errnoName(error) !== 'ESRCH';
  }
}
