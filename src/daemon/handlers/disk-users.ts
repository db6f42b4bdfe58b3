/** Who uses the exposed files: loop devices, file systems mounted from them, processes. */
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { DiskError, errnoName } from '../../common/errors.js';
import { shellWord } from '../../common/shell-word.js';
import { runCommand } from '../../host/host-command.js';
import { isKernelAtLeast } from '../../host/kernel-release.js';
import {
  flushLoopDevice,
  hasLoopsInUse,
  isMountedFrom,
  type LoopDevice,
  loopsOn,
} from '../../host/loop-devices.js';
import { type MountEntry, readMounts } from '../../host/mountinfo.js';
import { writeBack } from '../../storage/libc.js';
import type { Holder as FileHolder } from '../../transport/transport.js';
import type { Exposed, Flushed, Holder } from '../../vm/hooks.js';
import { type FrozenMount, freezeMount } from './frozen-mount.js';

/**
 * Whether a page that is written back counts as dirty until we answered. Older kernels copied it
 * aside; tried on 6.18 (native-notes/kernel-guarantees.md).
 */
const WAITS_FOR_ANSWERS = isKernelAtLeast(6, 18);

/** How long a mounted file system is given to write back before a snapshot goes ahead without. */
const SYNC_TIMEOUT_MS = 10_000;

export interface DiskUsersOptions {
  /** Absolute, without symbolic links. */
  readonly mountpoint: string;
  /** Everybody who uses the mount (`Transport.holders`). */
  readonly fileHolders: () => Promise<readonly FileHolder[]>;
}

/** A loop device with all that stands on it. */
export interface LoopUse {
  readonly loop: LoopDevice;
  readonly mounts: readonly MountEntry[];
}

/** A disk that may be open, by the name of its file below the VM's folder. */
export interface OpenDisk {
  readonly file: string;
  /**
   * Makes the kernel drop what it has cached of it, and write what is dirty first. Absent where
   * somebody has use for what is cached.
   */
  readonly dropCache?: () => Promise<void>;
}

export class DiskUsers {
  readonly #mountpoint: string;
  readonly #fileHolders: () => Promise<readonly FileHolder[]>;

  constructor({ mountpoint, fileHolders }: DiskUsersOptions) {
    this.#mountpoint = mountpoint;
    this.#fileHolders = fileHolders;
  }

  /** Loop devices on these files, directly or stacked, and what is mounted from them. */
  loopUses(exposed: Exposed): LoopUse[] {
    return this.loopUsesOf(this.#isIn(exposed));
  }

  loopUsesOf(isOurs: (path: string) => boolean): LoopUse[] {
    const loops = loopsOn(isOurs);
    if (loops.length === 0) return [];
    const mounts = readMounts();
    return loops.map((loop) => ({
      loop,
      mounts: mounts.filter((mount) => isMountedFrom(mount, loop)),
    }));
  }

  /** For `VmHooks.holders`: whoever must let go before the files may change or vanish. */
  async holders(exposed: Exposed): Promise<Holder[]> {
    const isOurs = this.#isIn(exposed);
    const loops = this.loopUses(exposed).map(describeLoop);
    const files = (await this.#fileHolders())
      .filter((each) => each.how === 'open file' || each.how === 'mapping')
      .filter((each) => isOurs(each.path))
      .map(({ name, pid, path }) => ({
        what: `process ${pid} (${name}) has ${path} open`,
        byPath: false,
      }));
    return [...loops, ...files];
  }

  /**
   * For `VmHooks.flushExposed`: brings what the host has cached above a VM's disks down to them,
   * from the top: mounted file systems, which stand still until `release`, loop devices, the page
   * cache of the raw files.
   * @param openDisks of the VM.
   */
  async flush(vm: string, openDisks: readonly OpenDisk[]): Promise<Flushed> {
    const frozen: FrozenMount[] = [];
    const release = async () => {
      for (const mount of frozen.splice(0).reverse()) await mount.thaw();
    };
    if (openDisks.length === 0) return { consistency: 'consistent', release };
    try {
      const problems = await this.#flushLoops(vm, frozen);
      for (const { file, dropCache } of openDisks) {
        const path = join(this.#mountpoint, vm, file);
        problems.push(...(await problemOf(bringDown(path, dropCache))));
      }
      const consistency =
        problems.length === 0 ? 'consistent' : `crash-consistent: ${problems.join('; ')}`;
      return { consistency, release };
    } catch (error) {
      await release();
      throw error;
    }
  }

  async #flushLoops(vm: string, frozen: FrozenMount[]): Promise<string[]> {
    if (!hasLoopsInUse()) return [];
    const problems: string[] = [];
    const seen = new Set<string>();
    for (const { loop, mounts } of this.loopUses({ vm, part: 'heads' }).reverse()) {
      for (const { mountpoint, device } of mounts) {
        // The same file system, mounted at a second place.
        if (seen.has(device)) continue;
        seen.add(device);
        const mount = await freezeMount(mountpoint);
        if (mount === undefined) problems.push(...(await syncFileSystem(mountpoint)));
        else frozen.push(mount);
      }
      problems.push(...(await problemOf(flushLoopDevice(loop))));
    }
    return problems;
  }

  #isIn(exposed: Exposed): (path: string) => boolean {
    const folder = `${join(this.#mountpoint, exposed.vm)}/`;
    if (exposed.part === 'all') return (path) => path.startsWith(folder);
    if (exposed.part === 'heads') {
      return (path) => path.startsWith(folder) && !path.slice(folder.length).includes('/');
    }
    const snapshot = `${folder}snapshots/${exposed.snapshot}/`;
    return (path) => path.startsWith(snapshot);
  }
}

function describeLoop({ loop, mounts }: LoopUse): Holder {
  const [mount] = mounts;
  if (mount !== undefined) {
    return {
      what: `it is mounted at ${mount.mountpoint} (${loop.device})`,
      remedy: `layerdisk unmount ${shellWord(mount.mountpoint)}`,
      byPath: true,
    };
  }
  return {
    what: `it is attached as ${loop.device}`,
    remedy: `layerdisk detach ${loop.device}`,
    byPath: true,
  };
}

/** Writes back a mounted file system, on a process of its own: it may take long, or for ever. */
async function syncFileSystem(mountpoint: string): Promise<string[]> {
  const slow = `the file system at ${mountpoint} was not written back`;
  try {
    const args = ['--file-system', mountpoint];
    const { code, complaint } = await runCommand('sync', args, SYNC_TIMEOUT_MS);
    return code === 0 ? [] : [`${slow} (${complaint})`];
  } catch (error) {
    if (error instanceof DiskError) return [slow];
    throw error;
  }
}

/**
 * Brings what the page cache has of a raw file down to us; the engine makes it durable. An fsync
 * does that, too, but it waits for the inode's lock, which direct writers hold by turns.
 */
async function bringDown(path: string, dropCache?: () => Promise<void>): Promise<void> {
  try {
    if (WAITS_FOR_ANSWERS && dropCache !== undefined) {
      await dropCache();
      return;
    }
    const handle = await open(path, 'r');
    try {
      if (WAITS_FOR_ANSWERS) await writeBack(handle.fd);
      else await handle.sync();
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw new DiskError('failed', `cannot flush ${path} (${errnoName(error) ?? 'EIO'})`);
  }
}

/** A failure to flush does not stop a snapshot; it is written into its label. */
async function problemOf(work: Promise<void>): Promise<string[]> {
  try {
    await work;
    return [];
  } catch (error) {
    if (error instanceof DiskError) return [error.message];
    throw error;
  }
}
