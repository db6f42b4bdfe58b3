/**
 * Attaching and mounting for tests: plain files stand in for the exposed ones, loop devices are the
 * host's own.
 */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, realpath, truncate, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { type AttachMethod, attachHandlers } from '../../src/daemon/handlers/attach-handlers.js';
import { DiskUsers } from '../../src/daemon/handlers/disk-users.js';
import { listLoopDevices } from '../../src/host/loop-devices.js';
import { readMounts } from '../../src/host/mountinfo.js';
import { exposedPath } from '../../src/vm/exposure.js';
import { type Calls, callable } from './handler-calls.js';
import { noGuests } from './no-guests.js';
import { VmWorld } from './vm-world.js';

/** Why loop devices can't be tried here; false when they can. */
export function noLoopDevices(): string | false {
  if (process.getuid?.() !== 0) return 'loop devices need root';
  return existsSync('/dev/loop-control') ? false : 'this host has no loop devices';
}

export class LoopWorld {
  readonly vms: VmWorld;
  /** Without symbolic links. */
  readonly folder: string;
  readonly users: DiskUsers;
  readonly handlers: Calls<AttachMethod>;
  readonly flushed: string[] = [];

  private constructor(vms: VmWorld, folder: string) {
    this.vms = vms;
    this.folder = folder;
    const mountpoint = join(folder, 'mnt');
    this.users = new DiskUsers({ mountpoint, fileHolders: async () => [] });
    vms.hooks.holders = (exposed) => this.users.holders(exposed);
    this.handlers = callable(
      attachHandlers({
        service: vms.service,
        mountpoint,
        store: join(folder, 'store'),
        users: this.users,
        guests: noGuests(vms),
        flush: async (top) => {
          this.flushed.push(top);
        },
        // What stands in for exposed files can be opened.
        engine: { tryOpen: async () => undefined },
      }),
    );
  }

  static async create(): Promise<LoopWorld> {
    const vms = await VmWorld.create();
    return new LoopWorld(vms, await realpath(vms.folder));
  }

  /** Makes the plain file that stands in for a disk's. */
  async expose(vm: string, snapshot: string | undefined, size: number): Promise<string> {
    const path = join(this.folder, 'mnt', exposedPath(vm, snapshot, 'disk0'));
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, '');
    await truncate(path, size);
    return path;
  }

  async directory(name: string): Promise<string> {
    const path = join(this.folder, name);
    await mkdir(path);
    return path;
  }

  /** Takes down whatever a failed test left. */
  async destroy(): Promise<void> {
    for (const mount of [...readMounts()].reverse()) {
      if (mount.mountpoint.startsWith(this.folder)) run('umount', '-l', mount.mountpoint);
    }
    for (const loop of listLoopDevices()) {
      if (loop.file.startsWith(this.folder)) run('losetup', '-d', loop.device);
    }
    await this.vms.destroy();
  }
}

/** Runs a program of the host; its output, trimmed. */
export function run(program: string, ...args: string[]): string {
  return execFileSync(program, args, { encoding: 'utf8', stdio: ['pipe', 'pipe', 'pipe'] }).trim();
}
