/** Starting a guest with memory that was saved: whether it fits, and having QEMU read it. */
import { spawnSync } from 'node:child_process';
import { statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { DiskError } from '../common/errors.js';
import { sumFile } from '../storage/file-checksum.js';
import type { Accelerator, AcceleratorChoice } from './accelerator.js';
import { QEMU } from './command-line.js';
import { qemuMissing } from './launch-errors.js';
import { ANSWER_MS } from './migration.js';
import { hostProcessor } from './processes.js';
import type { Qmp } from './qmp.js';
import type { GuestSetup } from './save-memory.js';

const POLL_MS = 20;

/** Memory that a guest is to go on with. */
export interface SavedMemory {
  /** Absolute. */
  readonly path: string;
  /** `VM@SNAPSHOT`, for messages. */
  readonly from: string;
  /** Bytes. */
  readonly size: number;
  /** CRC-32C, as eight hexadecimal digits. */
  readonly checksum: string;
  readonly setup: GuestSetup;
}

const COLD = 'start the VM without its memory: run --discard-memory';

/**
 * The accelerator that the memory needs.
 * @throws DiskError `not-supported` when another one was asked for.
 */
export function acceleratorOf({ from, setup }: SavedMemory, asked: AcceleratorChoice): Accelerator {
  const { accelerator } = setup;
  if (asked === 'auto' || asked === accelerator) return accelerator;
  throw refused(from, `it was saved under ${accelerator.toUpperCase()}, not ${asked}`);
}

/**
 * Sees to it, before anything is started, that the guest will be what it was.
 * @param extra what the user wants QEMU to be given besides.
 * @throws DiskError `not-supported` for another QEMU or processor, `usage` for other arguments,
 * `not-found` without the folder that they start from, `damaged` for a file that is not what it
 * was.
 */
export async function checkFits(memory: SavedMemory, extra: readonly string[]): Promise<void> {
  const { from, setup, path, size, checksum } = memory;
  const version = installedVersion();
  if (series(version) !== series(setup.version)) {
    throw refused(from, `it was saved by QEMU ${setup.version}, and this is QEMU ${version}`);
  }
  const processor = hostProcessor();
  if (setup.processor !== undefined && setup.processor !== processor) {
    throw refused(from, `the guest saw a processor ${setup.processor}, and this is ${processor}`);
  }
  if (extra.length > 0 && !isDeepStrictEqual(extra, setup.arguments)) {
    const saved = setup.arguments.length === 0 ? 'none' : setup.arguments.join(' ');
    throw new DiskError('usage', `${from} goes on with the arguments it was saved with: ${saved}`, {
      hint: `leave them out, or ${COLD}`,
    });
  }
  if (statSync(setup.folder, { throwIfNoEntry: false })?.isDirectory() !== true) {
    const what = `the folder ${setup.folder}, which the guest was started in, is gone`;
    throw new DiskError('not-found', what, { hint: `make it again, or ${COLD}` });
  }
  const found = await sumFile(path);
  if (found.size !== size || found.checksum !== checksum) {
    throw new DiskError('damaged', `the memory of ${from} is damaged: ${path}`, {
      hint: `the disks are not concerned: ${COLD}`,
      errno: 'EIO',
    });
  }
}

function refused(from: string, why: string): DiskError {
  return new DiskError('not-supported', `cannot go on with the memory of ${from}: ${why}`, {
    hint: COLD,
  });
}

function installedVersion(): string {
  const { error, stdout } = spawnSync(QEMU, ['--version'], { encoding: 'utf8' });
  if (error !== undefined) throw qemuMissing(error);
  return /version (\d+\.\d+\.\d+)/.exec(stdout)?.[1] ?? 'unknown';
}

/** What is the same in all stable releases of one version. */
function series(version: string): string {
  return version.split('.', 2).join('.');
}

/**
 * Has a QEMU that waits (`-incoming defer`) read memory from a descriptor that it inherited. One
 * that cannot use it ends, having said why.
 */
export async function readMemory(qmp: Qmp, fd: number): Promise<void> {
  await qmp.execute('migrate-incoming', { uri: `fd:${fd}` });
  for (;;) {
    const { status } = (await qmp.execute('query-status', undefined, ANSWER_MS)) as {
      status?: string;
    };
    if (status !== 'inmigrate') return;
    await sleep(POLL_MS);
  }
}
