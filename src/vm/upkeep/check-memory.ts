/** Checking the saved memory of guests: whether every file that a manifest names is what it was. */
import { DiskError } from '../../common/errors.js';
import type { VmContext } from '../context.js';
import type { Manifest, MemoryState } from '../store/manifest.js';

export interface MemoryProblem {
  readonly message: string;
  /** In the store. */
  readonly file: string;
  readonly vm: string;
  /** `web@first`, or `web` for what its next run would go on with. */
  readonly seenBy: readonly string[];
  readonly remedy: string;
}

interface NamedMemory {
  readonly state: MemoryState;
  readonly vm: string;
  readonly users: string[];
}

/** The memory that manifests name, kept from the collection from here on. */
export class MemoryCheck {
  readonly #context: VmContext;
  readonly #all = new Map<string, NamedMemory>();

  constructor(context: VmContext) {
    this.#context = context;
  }

  add(vm: string, { snapshots, resume }: Manifest): void {
    for (const { name, memoryState } of snapshots) {
      if (memoryState !== undefined) this.#add(vm, memoryState, `${vm}@${name}`);
    }
    if (resume !== undefined) this.#add(vm, resume.memoryState, vm);
  }

  #add(vm: string, state: MemoryState, user: string): void {
    const known = this.#all.get(state.id);
    if (known !== undefined) {
      known.users.push(user);
      return;
    }
    this.#context.pins.memory.pin(state.id);
    this.#all.set(state.id, { state, vm, users: [user] });
  }

  /** @param deep reads every byte. */
  async findProblems(deep: boolean): Promise<MemoryProblem[]> {
    const { memory } = this.#context;
    const problems: MemoryProblem[] = [];
    for (const { state, vm, users } of this.#all.values()) {
      try {
        await memory.examine(state, deep);
      } catch (error) {
        if (!(error instanceof DiskError)) throw error;
        problems.push({
          message: error.message,
          file: memory.nameOf(state.id),
          vm,
          seenBy: users,
          remedy: 'restore this file from a backup of the store, or start without the memory',
        });
      }
    }
    return problems;
  }

  end(): void {
    for (const id of this.#all.keys()) this.#context.pins.memory.unpin(id);
    this.#all.clear();
  }
}
