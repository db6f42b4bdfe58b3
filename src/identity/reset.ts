/** Starts the process that clears a clone's identity, and waits until nothing of it is left. */
import { spawn } from 'node:child_process';
import { mkdtemp, open, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { DiskError, type DiskErrorJson } from '../common/errors.js';
import { waitUntilGone } from '../host/end-loop-device.js';
import { COMMAND_ENVIRONMENT } from '../host/host-command.js';
import { listLoopDevices } from '../host/loop-devices.js';
import type { ClearedFile, LeftFile } from './clear.js';
import type { RawDisk } from './systems.js';

const PROGRAM = fileURLToPath(new URL('../identity/main.js', import.meta.url));

export interface ResetRequest {
  /** For messages. */
  readonly vm: string;
  /** Nobody else uses them meanwhile. */
  readonly disks: readonly RawDisk[];
  /** An open file whose lock sees to that: the process has it, too, should the caller be killed. */
  readonly lock: number;
  /** Ends the work; some may be cleared then. */
  readonly signal?: AbortSignal;
}

export interface ResetOutcome {
  readonly cleared: readonly ClearedFile[];
  readonly left: readonly LeftFile[];
}

/** What the process is told, besides. */
export interface ResetOrder extends Pick<ResetRequest, 'vm' | 'disks'> {
  /** An empty folder to mount at. */
  readonly directory: string;
}

export type ResetAnswer = { readonly outcome: ResetOutcome } | { readonly error: DiskErrorJson };

/** @throws DiskError `not-permitted`: only root may mount. */
export function refuseResetWithoutRoot(): void {
  if (process.geteuid?.() === 0) return;
  throw new DiskError('not-permitted', 'only root can clear an identity: it mounts the disks', {
    hint: 'use sudo; or clear it inside the guest: empty /etc/machine-id, new SSH host keys',
  });
}

/**
 * Clears machine-id, SSH host keys and the like on these disks, durably.
 * @throws DiskError `not-supported`, `not-permitted`, `interrupted`, `failed`; some may be cleared
 * then, but nothing stays mounted or attached.
 */
export async function resetIdentity(request: ResetRequest): Promise<ResetOutcome> {
  const { vm, disks } = request;
  const directory = await mkdtemp(join(tmpdir(), 'layerdisk-identity-'));
  let answer: ResetAnswer;
  try {
    answer = await runProgram({ vm, disks, directory }, request);
  } finally {
    const isOurs = (file: string) => disks.some(({ path }) => path === file);
    for (const loop of listLoopDevices()) if (isOurs(loop.file)) await waitUntilGone(loop);
    await rmdir(directory);
  }
  if ('error' in answer) throw DiskError.fromJSON(answer.error);
  for (const { path } of disks) await makeDurable(path);
  return answer.outcome;
}

async function makeDurable(path: string): Promise<void> {
  const handle = await open(path, 'r+');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

function runProgram(
  order: ResetOrder,
  { lock, signal }: Pick<ResetRequest, 'lock' | 'signal'>,
): Promise<ResetAnswer> {
  const args = ['--mount', '--propagation', 'private', '--', process.execPath, PROGRAM];
  return new Promise((resolve, reject) => {
    const child = spawn('unshare', args, {
      env: { ...COMMAND_ENVIRONMENT },
      stdio: ['pipe', 'pipe', 'pipe', lock],
      // Ctrl-C on the terminal is for the caller, who passes it on.
      detached: true,
      ...(signal === undefined ? {} : { signal, killSignal: 'SIGKILL' }),
    });
    let said = '';
    let complaint = '';
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      complaint = `${complaint}${text}`.slice(-4096);
    });
    // A process that ends early does not read; its end says why.
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(JSON.stringify(order));
    let failure: Error | undefined;
    child.once('error', (error) => {
      failure = error;
      if (child.pid === undefined) reject(cannotStart(error));
    });
    child.once('close', (code, killer) => {
      if (signal?.aborted) reject(new DiskError('interrupted', 'clearing the identity: cancelled'));
      else if (code === 0) resolve(JSON.parse(said) as ResetAnswer);
      else reject(endedBadly(killer ?? `status ${code}`, complaint, failure));
    });
  });
}

function cannotStart(error: Error): DiskError {
  return new DiskError('not-supported', `cannot run unshare: ${error.message}`, {
    hint: 'it is part of util-linux',
    cause: error,
  });
}

function endedBadly(how: string, complaint: string, cause: Error | undefined): DiskError {
  const [why = ''] = complaint.trim().split('\n');
  const text = `clearing the identity failed (${why || `its process ended by ${how}`})`;
  const hint = 'try again; some may be cleared already, which does no harm';
  return new DiskError('failed', text, { hint, ...(cause === undefined ? {} : { cause }) });
}
