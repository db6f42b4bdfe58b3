/**
 * The guests of a store: which VMs run, seen from their run folders each time it matters. QEMU is
 * no child of this process, so a daemon that starts finds the guests of the one before.
 */
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { DiskError, errnoName } from '../common/errors.js';
import type { GuestView } from '../control/protocol.js';
import { type Hold, holdStill, releaseAbandoned } from '../guest/guest-control.js';
import {
  checkRunFolder,
  makeLock,
  type RunFolder,
  type RunState,
  readRunning,
  readState,
  runFiles,
} from '../guest/run-folder.js';
import { type SavedGuest, saveMemory } from '../guest/save-memory.js';
import { makeFolder } from '../storage/directories.js';
import { listFolder, removeTree } from '../storage/small-files.js';
import type { Holder, MemoryRequest } from '../vm/hooks.js';
import type { VmEntry } from '../vm/store/vm-catalog.js';
import type { Logger } from './logger.js';

export interface GuestSources {
  /** The folder of all run folders. */
  readonly folder: string;
  readonly find: (vm: string) => VmEntry | undefined;
  readonly numbers: () => ReadonlySet<number>;
  readonly log: Logger;
}

/** Which process a guest is; a number alone may be given to another one later. */
export interface RunningGuest {
  readonly pid: number;
  readonly started: string;
}

export class Guests {
  readonly #sources: GuestSources;

  constructor(sources: GuestSources) {
    this.#sources = sources;
  }

  folderOf(vmNumber: number): RunFolder {
    return join(this.#sources.folder, String(vmNumber));
  }

  /** @throws DiskError when it can't be made, or is too long a path. */
  async makeFolder(vmNumber: number): Promise<RunFolder> {
    const folder = this.folderOf(vmNumber);
    checkRunFolder(folder);
    await makeFolder(folder);
    makeLock(folder);
    return folder;
  }

  state(vmNumber: number): RunState {
    return readState(this.folderOf(vmNumber));
  }

  view(vmNumber: number): GuestView | undefined {
    const folder = this.folderOf(vmNumber);
    const running = readRunning(folder);
    if (running === undefined) return undefined;
    const { pid, started, accelerator, console } = running;
    return {
      pid,
      since: started,
      accelerator,
      ...(console === 'socket' ? { console: runFiles(folder).console } : {}),
    };
  }

  /** All that run, by the numbers of their VMs. @throws the host's error. */
  running(): Map<number, RunningGuest> {
    const all = new Map<number, RunningGuest>();
    for (const name of listFolder(this.#sources.folder) ?? []) {
      const found = readRunning(join(this.#sources.folder, name));
      if (found !== undefined) all.set(Number(name), { pid: found.pid, started: found.started });
    }
    return all;
  }

  /** For `VmHooks.holders`: the guest, also while it is being started. */
  holders(vm: string): Holder[] {
    const entry = this.#sources.find(vm);
    const state = entry === undefined ? undefined : this.state(entry.number);
    if (state === undefined) return [];
    const how =
      state === 'in-between' ? 'just being started or ended' : `running, pid ${state.pid}`;
    // QEMU would not mind a new name, but whoever typed the old one would.
    return [{ what: `it has a guest (${how})`, remedy: `layerdisk stop ${vm}`, byPath: true }];
  }

  /** Holds a guest still that runs; its release never fails, but says so in the log. */
  async hold(vm: string): Promise<Hold | undefined> {
    const entry = this.#sources.find(vm);
    if (entry === undefined) return undefined;
    const folder = this.folderOf(entry.number);
    if (readRunning(folder) === undefined) return undefined;
    const hold = await holdStill(folder);
    return { consistency: hold.consistency, release: this.#safely(vm, folder, hold) };
  }

  #safely(vm: string, folder: RunFolder, { release }: Hold): () => Promise<void> {
    return async () => {
      try {
        await release();
      } catch (error) {
        if (readRunning(folder) === undefined) return;
        this.#sources.log.error(`the guest of ${vm} does not go on after a snapshot`, { error });
      }
    };
  }

  /**
   * Pauses a guest until the release, and saves its memory.
   * @throws DiskError `not-found` when it does not run, `exists` when the VM was configured
   * otherwise since it was started, `failed`, `interrupted`.
   */
  async save(vm: string, request: MemoryRequest): Promise<SavedGuest> {
    const entry = this.#sources.find(vm);
    const folder = this.folderOf(entry?.number ?? -1);
    const guest = entry === undefined ? undefined : readRunning(folder);
    if (guest === undefined) {
      throw new DiskError('not-found', `VM "${vm}" does not run: it has no memory to save`, {
        hint: 'leave --memory out, or start it first',
      });
    }
    const { hardware, disks, file, work } = request;
    if (!isDeepStrictEqual(guest.hardware, { ...hardware, disks })) {
      const what = `VM "${vm}" was changed since its guest was started: its memory fits no more`;
      throw new DiskError('exists', what, {
        hint: 'leave --memory out, or stop the guest and start it again first',
      });
    }
    const { signal, onProgress } = work;
    const saved = await saveMemory(folder, guest, {
      ...{ part: file.part, path: file.path },
      ...(signal === undefined ? {} : { signal }),
      ...(onProgress === undefined ? {} : { onProgress }),
    });
    return { ...saved, release: this.#safely(vm, folder, saved) };
  }

  /** Removes the folder of a VM that was deleted; what stays is removed at the next start. */
  async removeFolder(vmNumber: number): Promise<void> {
    const folder = this.folderOf(vmNumber);
    try {
      if (this.#sources.numbers().has(vmNumber) || readRunning(folder) !== undefined) return;
      await removeTree(folder, 'guest.remove-folder');
    } catch (error) {
      this.#sources.log.error(`cannot remove ${folder}`, { error, errno: errnoName(error) });
    }
  }

  /** At the start: lets go what a daemon that died held, and removes folders of deleted VMs. */
  async start(): Promise<void> {
    const { folder, numbers, log } = this.#sources;
    const known = numbers();
    for (const name of listFolder(folder) ?? []) {
      const number = Number(name);
      try {
        if (readRunning(join(folder, name)) !== undefined) {
          if (!(await releaseAbandoned(join(folder, name)))) continue;
          log.warn(`guest ${name} was held still by a daemon that died: it goes on`);
        } else if (!known.has(number)) {
          await removeTree(join(folder, name), 'guest.remove-folder');
        }
      } catch (error) {
        log.error(`cannot tidy ${join(folder, name)}`, { error, errno: errnoName(error) });
      }
    }
  }
}
