/**
 * A change in the making: everything durable but unreachable first, then one commit, else nothing
 * stays.
 */
import { invariant } from '../common/assert.js';
import { together } from '../common/together.js';
import { type DeltaId, newDeltaId } from '../engine/delta-id.js';
import type { DeltaSpec, HeadSwitch } from '../engine/engine.js';
import type { PendingFile } from '../storage/atomic-write.js';
import type { VmContext } from './context.js';
import type { MacClaims } from './hardware.js';
import type { BaseRecord, BaseRequest, DescribedBase } from './store/base-records.js';
import type { NewMemoryFile } from './store/memory-files.js';

/**
 * INVARIANT: until `commit` nothing that it made is named by a manifest, and all of it is pinned.
 */
export class Preparation {
  /** For the NICs of this change. */
  readonly macs: MacClaims;
  readonly #context: VmContext;
  readonly #pinnedDeltas: DeltaId[] = [];
  readonly #pinnedBases: string[] = [];
  readonly #memory: NewMemoryFile[] = [];
  /** Made here, and removed again when the commit is not reached. */
  #deltas: DeltaId[] = [];
  #bases: string[] = [];
  /** Deltas that are being made. */
  readonly #making: Promise<unknown>[] = [];
  /** Manifests of which one is committed, or none. */
  readonly #written: Promise<PendingFile>[] = [];
  #pending: PendingFile | undefined;
  #committed = false;

  private constructor(context: VmContext) {
    this.#context = context;
    this.macs = context.macs.claims();
  }

  /**
   * Runs `work`, which is to end with `commit`. Whatever it made is removed when it throws before
   * that.
   */
  static async run<T>(
    context: VmContext,
    work: (preparation: Preparation) => Promise<T>,
  ): Promise<T> {
    const preparation = new Preparation(context);
    try {
      return await work(preparation);
    } finally {
      await preparation.#end();
    }
  }

  /** Whether the change stands, even if something failed after it. */
  get isCommitted(): boolean {
    return this.#committed;
  }

  /** Keeps deltas that others made, and all below them, from being collected while this runs. */
  pin(...ids: readonly DeltaId[]): void {
    for (const id of ids) {
      this.#context.pins.deltas.pin(id);
      this.#pinnedDeltas.push(id);
    }
  }

  async createDelta(spec: DeltaSpec): Promise<DeltaId> {
    const id = newDeltaId();
    await this.#make(id, spec);
    return id;
  }

  /**
   * Begins to make a delta, for who has other things to do until it is there.
   * @returns its id. It is there, durable, when the change is committed; a failure is told then.
   */
  beginDelta(spec: DeltaSpec): DeltaId {
    const id = newDeltaId();
    const made = this.#make(id, spec);
    made.catch(() => undefined);
    this.#making.push(made);
    return id;
  }

  async #make(id: DeltaId, spec: DeltaSpec): Promise<void> {
    const { engine, pins, chains } = this.#context;
    await pins.making.shared(async () => {
      await engine.deltas.create(spec, id);
      this.pin(id);
    });
    this.#deltas.push(id);
    if (spec.below.kind === 'delta') chains.noteChild(spec.below.id, id);
  }

  async createBase(
    vmId: string,
    request: BaseRequest,
    described: DescribedBase,
  ): Promise<BaseRecord> {
    const { bases, pins } = this.#context;
    const record = await pins.making.shared(async () => {
      const made = await bases.create(vmId, request, described);
      pins.bases.pin(made.id);
      this.#pinnedBases.push(made.id);
      return made;
    });
    this.#bases.push(record.id);
    return record;
  }

  /**
   * Notes a manifest that is being written and may not be the one to commit: it goes at the end.
   */
  expect(pending: Promise<PendingFile>): void {
    pending.catch(() => undefined);
    this.#written.push(pending);
  }

  /** Names a file for the memory of a guest, which somebody else is going to write. */
  nameMemory(): NewMemoryFile {
    const { memory, pins } = this.#context;
    const file = memory.name();
    pins.memory.pin(file.id);
    this.#memory.push(file);
    return file;
  }

  /** The commit of a change that no open disk sees. */
  async commit(pending: PendingFile): Promise<void> {
    this.#pending = pending;
    await together(this.#making);
    pending.commit();
    this.#committed = true;
    await pending.settle();
  }

  /**
   * The commit of a change that moves heads: the manifest and the open disks change at one instant.
   * @param onMoved is called right after that, when it is not durable yet.
   */
  async commitHeads(
    switches: readonly HeadSwitch[],
    pending: PendingFile,
    onMoved?: () => void,
  ): Promise<void> {
    this.#pending = pending;
    await together(this.#making);
    const commit = () => {
      invariant(!this.#committed, 'a change is committed once');
      pending.commit();
      this.#committed = true;
    };
    await this.#context.engine.volumes.switchHeads(switches, commit, () => {
      onMoved?.();
      return pending.settle();
    });
    invariant(this.#committed, 'switchHeads answered without the commit');
  }

  /**
   * The same where disks show something else afterwards: the kernel forgets what it has of these
   * nodes once the change stands, also when it cannot be made durable.
   */
  async commitContents(
    switches: readonly HeadSwitch[],
    pending: PendingFile,
    { vmNumber, nodes }: { readonly vmNumber: number; readonly nodes: readonly number[] },
  ): Promise<void> {
    try {
      await this.commitHeads(switches, pending);
    } finally {
      if (this.#committed) await this.#context.hooks.contentChanged(vmNumber, nodes);
    }
  }

  /** For what was made as a means only: it goes when the work ends, whatever comes out. */
  async discard(deltas: readonly DeltaId[], bases: readonly string[]): Promise<void> {
    this.#deltas = this.#deltas.filter((id) => !deltas.includes(id));
    this.#bases = this.#bases.filter((id) => !bases.includes(id));
    await this.#remove(deltas, bases);
  }

  async #end(): Promise<void> {
    const { pins, memory } = this.#context;
    // What is still being made is removed when it is there.
    await Promise.allSettled(this.#making);
    const stays = this.#committed ? this.#pending : undefined;
    for (const written of [...this.#written, Promise.resolve(this.#pending)]) {
      // The error to report is that of the work; a leftover is removed at the next start.
      await written
        .then((each) => (each === stays ? undefined : each?.abandon()))
        .catch(() => undefined);
    }
    if (!this.#committed) {
      await this.#remove(this.#deltas, this.#bases);
      // As above: what can't be removed now is garbage.
      for (const file of this.#memory) await memory.discard(file).catch(() => undefined);
    }
    for (const { id } of this.#memory) pins.memory.unpin(id);
    for (const id of this.#pinnedDeltas) pins.deltas.unpin(id);
    for (const id of this.#pinnedBases) pins.bases.unpin(id);
    this.macs.release();
  }

  async #remove(deltas: readonly DeltaId[], bases: readonly string[]): Promise<void> {
    const { engine, bases: records, onGarbage, pins } = this.#context;
    try {
      // They stay open for some seconds after a copy, and would be looked at with their bases.
      for (const id of deltas) await engine.volumes.close(id);
      // Not while garbage is collected: what is pinned is looked for there.
      if (deltas.length > 0) await pins.making.shared(() => engine.deltas.discard(deltas));
      for (const id of bases) records.remove(id);
    } catch {
      // No manifest names them, so the next collection takes them; the work's own outcome stands.
    }
    // Those that somebody has open are left to it as well, and their bases.
    if (deltas.length > 0) onGarbage();
  }
}
