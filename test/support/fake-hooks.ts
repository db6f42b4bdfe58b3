/**
 * The world above the disks, as the store sees it: who holds them, what is flushed, a guest that is
 * saved.
 */
import { rename, writeFile } from 'node:fs/promises';
import { DiskError } from '../../src/common/errors.js';
import type {
  Exposed,
  Flushed,
  HeldOpens,
  Holder,
  MemoryRequest,
  VmHooks,
} from '../../src/vm/hooks.js';
import type { GuestSetup } from '../../src/vm/store/manifest.js';
import type { Faults } from './faults.js';

/** Of the guest that `FakeHooks` saves. */
export const GUEST_SETUP: GuestSetup = {
  version: '7.2.0',
  machine: 'pc-q35-7.2',
  accelerator: 'tcg',
  arguments: ['-kernel', 'vmlinuz'],
  folder: '/',
};

export class FakeHooks implements VmHooks {
  consistency = 'consistent';
  readonly holding: { exposed: Exposed['part']; vm: string; holder: Holder }[] = [];
  readonly flushed: string[] = [];
  readonly changed: { vmNumber: number; nodes: readonly number[] }[] = [];
  readonly renamed: string[] = [];

  /** Opens that the kernel knows of and nobody else. */
  opens = 0;

  /** VMs above which something stands still now. */
  readonly frozen = new Set<string>();

  /** What a guest that is to be saved has in its memory; undefined: none runs. */
  guestMemory: Buffer | undefined = Buffer.alloc(10_000, 'memory');
  readonly #faults: Faults;

  constructor(faults: Faults) {
    this.#faults = faults;
  }

  async flushExposed(vm: string, memory?: MemoryRequest): Promise<Flushed> {
    const guest = memory && (await this.#saveGuest(vm, memory));
    this.flushed.push(vm);
    this.frozen.add(vm);
    const release = async () => {
      this.frozen.delete(vm);
    };
    return { consistency: this.consistency, release, ...(guest && { guest }) };
  }

  /** As QEMU does it; what fails on the way leaves a part of the file. */
  async #saveGuest(vm: string, { file }: MemoryRequest): Promise<GuestSetup> {
    if (this.guestMemory === undefined) throw new DiskError('not-found', `"${vm}" does not run`);
    this.#faults.reach('guest.save');
    await writeFile(file.part, this.guestMemory.subarray(0, 100), { flag: 'wx', mode: 0o600 });
    this.#faults.reach('guest.saved-a-part');
    await writeFile(file.part, this.guestMemory);
    await rename(file.part, file.path);
    return GUEST_SETUP;
  }

  async contentChanged(vmNumber: number, nodes: readonly number[]): Promise<void> {
    this.changed.push({ vmNumber, nodes });
  }

  async holders(exposed: Exposed): Promise<readonly Holder[]> {
    return this.holding
      .filter((each) => each.vm === exposed.vm)
      .filter((each) => exposed.part === 'all' || each.exposed === exposed.part)
      .map((each) => each.holder);
  }

  /** VMs whose files cannot be opened now. */
  readonly closed = new Set<number>();

  holdOpens(vmNumber: number): HeldOpens {
    this.closed.add(vmNumber);
    return {
      stillOpen: async () => this.opens,
      release: () => void this.closed.delete(vmNumber),
    };
  }

  namesChanged(vm: string): void {
    this.renamed.push(vm);
  }
}
