/**
 * What VM operations need of the mount: flushing what is cached above it, dropping caches, who uses
 * what.
 */
import { Mutex } from '../common/mutex.js';
import type { LocalEngine } from '../engine/local-engine.js';
import { type NodeId, ROOT_NODE } from '../transport/namespace.js';
import type { Transport } from '../transport/transport.js';
import type { Exposure } from '../vm/exposure.js';
import type {
  Exposed,
  Flushed,
  GoneName,
  HeldOpens,
  Holder,
  MemoryRequest,
  VmHooks,
} from '../vm/hooks.js';
import type { Guests } from './guests.js';
import type { DiskUsers, OpenDisk } from './handlers/disk-users.js';
import type { Logger } from './logger.js';
import type { OpenFiles } from './open-files.js';

export interface HookParts {
  readonly engine: LocalEngine;
  readonly exposure: () => Exposure;
  /** Undefined until the mount is up. */
  readonly transport: () => Transport | undefined;
  readonly users: () => DiskUsers | undefined;
  readonly guests: Guests;
  readonly files: OpenFiles;
  readonly log: Logger;
}

export class DaemonHooks implements VmHooks {
  readonly #parts: HookParts;
  /**
   * One flush at a time: each waits on a pool thread for requests to our own mount, and the answer
   * to those may need a pool thread, too.
   */
  readonly #flushing = new Mutex();

  constructor(parts: HookParts) {
    this.#parts = parts;
  }

  async flushExposed(vm: string, memory?: MemoryRequest): Promise<Flushed> {
    const { engine, exposure, users } = this.#parts;
    const found = exposure().find(vm);
    const open = (found?.disks ?? [])
      .filter((disk) => engine.volumes.isOpen(disk.top))
      .map(({ fileName, node }) => this.#openDisk(fileName, { hi: found!.number, lo: node }));
    const { guests } = this.#parts;
    const saved = memory && (await guests.save(vm, memory));
    const hold = saved ?? (await guests.hold(vm));
    const letGo = () => hold?.release() ?? Promise.resolve();
    try {
      const flushed = await this.#flushing.run(async () => users()?.flush(vm, open));
      // Once: a second time could meet the next one that holds the guest still.
      const release = async () => {
        try {
          await flushed?.release();
        } finally {
          await letGo();
        }
      };
      const consistency = describeBoth(hold?.consistency, flushed?.consistency);
      return { consistency, release, ...(saved === undefined ? {} : { guest: saved.setup }) };
    } catch (error) {
      await letGo();
      throw error;
    }
  }

  /**
   * Dropping what is cached brings down what is dirty of it, and needs no open of the file, which
   * would take its turn behind those who use it.
   */
  #openDisk(file: string, node: NodeId): OpenDisk {
    const transport = this.#parts.transport();
    if (transport === undefined || !this.#parts.files.isOnlyDirect(node)) return { file };
    return { file, dropCache: () => transport.invalidate(node) };
  }

  async contentChanged(vmNumber: number, nodes: readonly number[]): Promise<void> {
    const transport = this.#parts.transport();
    for (const lo of nodes) await transport?.invalidate({ hi: vmNumber, lo });
  }

  async holders(exposed: Exposed): Promise<readonly Holder[]> {
    // First: it is what people know the process by.
    const { users, guests } = this.#parts;
    const guest = exposed.part === 'snapshot' ? [] : guests.holders(exposed.vm);
    // To ask every process of the host takes far longer than all else that a change does.
    if (!this.#mayBeOpen(exposed)) return guest;
    return [...guest, ...((await users()?.holders(exposed)) ?? [])];
  }

  #mayBeOpen(exposed: Exposed): boolean {
    const { exposure, files } = this.#parts;
    const vm = exposure().find(exposed.vm);
    if (vm === undefined) return true;
    const snapshots = vm.snapshots.filter(
      ({ name }) =>
        exposed.part === 'all' || (exposed.part === 'snapshot' && name === exposed.snapshot),
    );
    const heads = exposed.part === 'snapshot' ? [] : vm.disks;
    const disks = [...heads, ...snapshots.flatMap((snapshot) => snapshot.disks)];
    return files.mayBeOpen(
      vm.number,
      disks.map(({ node }) => node),
    );
  }

  holdOpens(vmNumber: number, nodes: readonly number[]): HeldOpens {
    return this.#parts.files.hold(vmNumber, nodes);
  }

  namesChanged(vm: string, gone: readonly GoneName[] = []): void {
    // Names that came are never cached as missing. Those that went are believed for a second: under
    // a name that was given anew for something else, what had it before would be found.
    for (const { vmNumber, folder, name } of gone) {
      this.#forgetName({ hi: vmNumber, lo: folder }, name);
    }
    if (this.#parts.exposure().find(vm) === undefined) this.#forgetName(ROOT_NODE, vm);
  }

  #forgetName(folder: NodeId, name: string): void {
    const { transport, log } = this.#parts;
    transport()
      ?.invalidateEntry(folder, name)
      .catch((error: unknown) => log.warn(`cannot make the kernel forget ${name}`, { error }));
  }
}

/** @param guest what a guest that runs was seen to do; undefined without one. */
function describeBoth(guest: string | undefined, host = 'consistent'): string {
  if (guest === undefined) return host;
  return host === 'consistent' ? guest : `${host}; ${guest}`;
}
