/** What VM operations need of the mount and of loop devices above it: flushing, caches, who holds what. */
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoName } from '../common/errors.js';
import type { LocalEngine } from '../engine/local-engine.js';
import { syncfs } from '../storage/libc.js';
import { ROOT_NODE } from '../transport/namespace.js';
import type { Transport } from '../transport/transport.js';
import type { ExposedDisk, Exposure } from '../vm/exposure.js';
import type { Exposed, Holder, VmHooks } from '../vm/hooks.js';
import type { Logger } from './logger.js';
import { listLoopDevices, mountsOfDevice } from './loop-devices.js';

export interface HookParts {
  readonly engine: LocalEngine;
  readonly exposure: () => Exposure;
  /** Undefined until it is up and after it is gone. */
  readonly transport: () => Transport | undefined;
  readonly log: Logger;
}

const CONSISTENT = 'consistent';

export class DaemonHooks implements VmHooks {
  readonly #parts: HookParts;

  constructor(parts: HookParts) {
    this.#parts = parts;
  }

  /**
   * From the top down: file systems mounted from loop devices, the loop devices, the raw files. None of it runs
   * on this thread, which may have to answer requests meanwhile.
   */
  async flushExposed(vm: string): Promise<string> {
    const { engine, exposure, transport } = this.#parts;
    const mount = transport();
    const exposed = exposure().find(vm);
    if (mount === undefined || exposed === undefined) return CONSISTENT;
    const open = exposed.disks.filter((disk) => engine.volumes.isOpen(disk.top));
    let consistency = CONSISTENT;
    for (const disk of open) {
      const path = join(mount.mountpoint, vm, disk.fileName);
      for (const { device, file } of listLoopDevices()) {
        if (file !== path) continue;
        for (const place of mountsOfDevice(device)) {
          await this.#syncFileSystem(place);
          consistency = `crash-consistent: ${device} is mounted at ${place}`;
        }
        await this.#syncFile(device);
      }
      await this.#syncFile(path);
    }
    return consistency;
  }

  async #syncFileSystem(place: string): Promise<void> {
    const folder = await open(place, 'r');
    try {
      await syncfs(folder.fd);
    } finally {
      await folder.close();
    }
  }

  async #syncFile(path: string): Promise<void> {
    const file = await open(path, 'r').catch((error: unknown) => {
      // Detached or renamed a moment ago: whatever was dirty went down with that.
      if (errnoName(error) === 'ENOENT' || errnoName(error) === 'ENXIO') return undefined;
      throw error;
    });
    if (file === undefined) return;
    try {
      await file.sync();
    } finally {
      await file.close();
    }
  }

  async contentChanged(vmNumber: number, nodes: readonly number[]): Promise<void> {
    const transport = this.#parts.transport();
    for (const lo of nodes) await transport?.invalidate({ hi: vmNumber, lo });
  }

  async holders(exposed: Exposed): Promise<readonly Holder[]> {
    const { exposure, transport, engine } = this.#parts;
    const mount = transport();
    const vm = exposure().find(exposed.vm);
    if (mount === undefined || vm === undefined) return [];
    const heads = exposed.part === 'snapshot' ? [] : vm.disks.map((disk) => ({ disk, folder: '' }));
    const kept = exposed.part === 'heads' ? [] : vm.snapshots;
    const snapshots = kept
      .filter((each) => exposed.part === 'all' || each.name === wantedSnapshot(exposed))
      .flatMap(({ name, disks }) => disks.map((disk) => ({ disk, folder: `snapshots/${name}` })));
    const open = [...heads, ...snapshots].filter(({ disk }) => engine.volumes.isOpen(disk.top));
    if (open.length === 0) return [];
    const everyone = await mount.holders();
    return open.flatMap(({ disk, folder }) =>
      holdersOf(join(mount.mountpoint, exposed.vm, folder, disk.fileName), exposed, disk, everyone),
    );
  }

  namesChanged(vm: string): void {
    const { exposure, transport, log } = this.#parts;
    // Names that came are never cached as missing; names below a folder are asked for again each second. Only
    // a VM that went must not be found by its old name for that long.
    if (exposure().find(vm) !== undefined) return;
    transport()
      ?.invalidateEntry(ROOT_NODE, vm)
      .catch((error: unknown) => log.warn(`cannot make the kernel forget ${vm}`, { error }));
  }
}

function wantedSnapshot(exposed: Exposed): string | undefined {
  return exposed.part === 'snapshot' ? exposed.snapshot : undefined;
}

function holdersOf(
  path: string,
  exposed: Exposed,
  disk: ExposedDisk,
  everyone: Awaited<ReturnType<Transport['holders']>>,
): Holder[] {
  const target = exposed.part === 'snapshot' ? `${exposed.vm}@${exposed.snapshot}` : exposed.vm;
  return everyone
    .filter((holder) => holder.path === path)
    .map((holder) => {
      if (holder.how === 'loop device') {
        const [place] = mountsOfDevice(holder.name);
        const mounted = place === undefined ? '' : `, mounted at ${place}`;
        return {
          what: `${holder.name} is attached to ${disk.fileName}${mounted}`,
          remedy:
            place === undefined ? `layerdisk detach ${target}` : `layerdisk unmount ${place}`,
          byPath: true,
        };
      }
      return { what: `process ${holder.pid} (${holder.name}) has ${path} open`, byPath: false };
    });
}
