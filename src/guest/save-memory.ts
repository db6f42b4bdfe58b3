/**
 * Saves the memory and the devices of a guest to a file, as QEMU's own migration stream. The guest
 * stands still from the first to the last byte, and until it is let go.
 *
 * QEMU 7.2 writes into a program (`exec:`), later ones could write files themselves. The program
 * renames the file only when it has written all that it was given, so the name tells that it ended.
 */
import { closeSync, existsSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { DiskError, errnoName } from '../common/errors.js';
import { type Hold, isGoing, letGo, PAUSED } from './guest-control.js';
import { ANSWER_MS, cancelMigration, hasEnded, queryMigration } from './migration.js';
import { hostProcessor } from './processes.js';
import { Qmp } from './qmp.js';
import { type RunFolder, type RunRecord, runFiles } from './run-folder.js';

/** How long QEMU may take to write back what the guest has under way. */
const STOP_MS = 60_000;
const POLL_MS = 20;
/** How long the program may take for what is left in the pipe. */
const RENAME_MS = 60_000;
/** Bytes a second: no limit. QEMU's own is for networks. */
const BANDWIDTH = 2 ** 40;

/** What a guest must be started as to take its memory back. */
export interface GuestSetup {
  /** Of QEMU, as `7.2.22`. */
  readonly version: string;
  /** A versioned machine type, as `pc-q35-7.2`. */
  readonly machine: string;
  readonly accelerator: 'kvm' | 'tcg';
  /** The host's, where the guest saw that. */
  readonly processor?: string;
  /** What QEMU was given besides. */
  readonly arguments: readonly string[];
  /** The folder that relative paths in those start from. */
  readonly folder: string;
}

export interface MemoryTarget {
  /** Absolute; made here, and renamed to `path` when it is whole. */
  readonly part: string;
  readonly path: string;
  readonly signal?: AbortSignal;
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
}

export interface SavedGuest extends Hold {
  readonly setup: GuestSetup;
}

const MEMORY_SAVED = `${PAUSED}, with its memory`;

/**
 * Pauses a guest and saves its memory. The content of the file is not durable yet.
 * @throws DiskError `failed`, `interrupted`; the guest goes on then as before.
 */
export async function saveMemory(
  folder: RunFolder,
  guest: RunRecord,
  target: MemoryTarget,
): Promise<SavedGuest> {
  const { qmp: path, held } = runFiles(folder);
  let back: 'go on' | 'stay' = 'stay';
  try {
    return await Qmp.with(path, async (qmp) => {
      if (await isGoing(qmp)) back = 'go on';
      writeFileSync(held, back);
      const setup = await setupOf(qmp, guest);
      if (back === 'go on') await qmp.execute('stop', undefined, STOP_MS);
      await migrate(qmp, folder, target);
      return { consistency: MEMORY_SAVED, setup, release: () => letGo(folder, back) };
    });
  } catch (error) {
    await goBack(folder, back, error);
    throw error;
  }
}

/** Lets the guest go after `cause` spoiled the saving of it. */
async function goBack(folder: RunFolder, how: 'go on' | 'stay', cause: unknown): Promise<void> {
  try {
    await Qmp.with(runFiles(folder).qmp, cancelMigration);
    await letGo(folder, how);
  } catch (error) {
    const [why, then] = [cause, error].map((each) =>
      each instanceof Error ? each.message : String(each),
    );
    throw new DiskError('failed', `${why}; and the guest does not go on: ${then}`, { cause });
  }
}

async function setupOf(qmp: Qmp, guest: RunRecord): Promise<GuestSetup> {
  const type = await qmp.execute('qom-get', { path: '/machine', property: 'type' });
  const { accelerator } = guest;
  return {
    version: qmp.version,
    machine: String(type).replace(/-machine$/, ''),
    accelerator,
    ...(accelerator === 'kvm' ? { processor: hostProcessor() } : {}),
    arguments: guest.arguments,
    folder: guest.folder,
  };
}

async function migrate(qmp: Qmp, folder: RunFolder, target: MemoryTarget): Promise<void> {
  const { part, path } = target;
  makeFile(part);
  const before = (await qmp.execute('query-migrate-parameters')) as Record<string, number>;
  await qmp.execute('migrate-set-parameters', { 'max-bandwidth': BANDWIDTH });
  try {
    const [from, to] = [quote(part), quote(path)];
    await qmp.execute('migrate', { uri: `exec:cat >${from} && exec mv -T ${from} ${to}` });
    await watch(qmp, target);
  } catch (error) {
    throw betterReason(error, part, folder);
  } finally {
    const limit = before['max-bandwidth'];
    await qmp.execute('migrate-set-parameters', { 'max-bandwidth': limit }, ANSWER_MS);
  }
  for (let waited = 0; !existsSync(path); waited += POLL_MS) {
    if (waited >= RENAME_MS) {
      throw new DiskError('failed', `cannot save the memory: its end is not in ${part}`);
    }
    await sleep(POLL_MS);
  }
}

/** Private from the start: what a guest has in its memory is as secret as its disks. */
function makeFile(path: string): void {
  try {
    closeSync(openSync(path, 'wx', 0o600));
  } catch (error) {
    const errno = errnoName(error) ?? 'EIO';
    throw new DiskError('failed', `cannot save the memory: cannot make ${path} (${errno})`, {
      errno,
    });
  }
}

async function watch(qmp: Qmp, { signal, onProgress }: MemoryTarget): Promise<void> {
  for (;;) {
    const state = await queryMigration(qmp);
    if (state.ram !== undefined) {
      onProgress?.(state.ram.total - state.ram.remaining, state.ram.total);
    }
    if (state.status === 'completed') return;
    if (hasEnded(state)) {
      const why = state['error-desc'] ?? String(state.status);
      throw new DiskError('failed', `cannot save the memory: QEMU says: ${why}`);
    }
    if (signal?.aborted === true) {
      await cancelMigration(qmp);
      throw new DiskError('interrupted', 'cancelled; no snapshot was taken');
    }
    await sleep(POLL_MS);
  }
}

/** QEMU only saw that the program ended; what the program said is in QEMU's log. */
function betterReason(error: unknown, part: string, folder: RunFolder): unknown {
  if (!(error instanceof DiskError) || error.code !== 'failed') return error;
  const said = readFileSync(runFiles(folder).log, 'utf8').trim().split('\n').at(-1) ?? '';
  if (!/^(cat|mv): /.test(said)) return error;
  rmSync(part, { force: true });
  const full = said.includes('No space left');
  return new DiskError('failed', `cannot save the memory: ${said.replace(/^(cat|mv): /, '')}`, {
    cause: error,
    ...(full ? { errno: 'ENOSPC', hint: 'free space in the file system of the store' } : {}),
  });
}

/** For the shell. */
function quote(path: string): string {
  return `'${path.replaceAll("'", `'\\''`)}'`;
}
