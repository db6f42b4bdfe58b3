/**
 * Everything that can be done with VMs: one method per operation, each either done or without
 * effect.
 */
import type { DiffPage } from '../common/disk-diff.js';
import type { DeltaId } from '../engine/delta-id.js';
import type { Engine } from '../engine/engine.js';
import { type ChainFacts, Chains } from './chains.js';
import { type CloneOutcome, type CloneRequest, cloneVm } from './clones.js';
import {
  refuseUnnamedUsers,
  refuseWhileHeld,
  type VmContext,
  type Work,
  withNewName,
  withVm,
} from './context.js';
import { createVm, type DiskRequest } from './create.js';
import { deleteVm } from './deletion.js';
import { type DiffRequest, diffDisks, type RunDiff } from './diffs.js';
import { changeKinds, type KindChange, resetImmutable } from './disk-kinds.js';
import { addDisk, type Resize, removeDisk, resizeDisk } from './disks.js';
import {
  type ExportOutcome,
  type ExportRequest,
  type ExportTools,
  exportDisk,
  type RunExport,
} from './exchange/exports.js';
import { importVm } from './exchange/import.js';
import { type MachineFilesRequest, writeMachineFiles } from './exchange/machine-files.js';
import {
  type ImportedMachine,
  importMachine,
  type MachineImport,
} from './exchange/machine-import.js';
import { exportOva, type OvaRequest } from './exchange/ova-export.js';
import { Exposure } from './exposure.js';
import { changeHardware, type HardwareRequest, MacPool } from './hardware.js';
import { Headroom } from './headroom.js';
import type { VmHooks } from './hooks.js';
import { Preparation } from './preparation.js';
import { type RestoreRequest, restoreSnapshot } from './restore.js';
import { discardMemory, type UsableMemory, usableMemory, useMemory } from './resume.js';
import { plainRoom, type StoreRoom } from './room.js';
import { deleteSnapshot, renameSnapshot, type SnapshotRequest, takeSnapshot } from './snapshots.js';
import type { BaseRecord, BaseRecords, BaseRequest } from './store/base-records.js';
import { DeltaPins } from './store/delta-pins.js';
import type { DiskRecord, Manifest, SnapshotRecord } from './store/manifest.js';
import { MemoryFiles } from './store/memory-files.js';
import { checkName } from './store/names.js';
import type { DamagedVm, VmEntry } from './store/vm-catalog.js';
import type { VmStore } from './store/vm-store.js';
import { acceptBases } from './upkeep/base-accept.js';
import { type CheckOutcome, type CheckRequest, StoreCheck } from './upkeep/check.js';
import { type CompactOutcome, compactVm } from './upkeep/compaction.js';
import {
  type Collected,
  GarbageCollector,
  type GarbagePace,
  USUAL_PACE,
} from './upkeep/garbage.js';

export interface VmServiceOptions {
  readonly store: VmStore;
  readonly bases: BaseRecords;
  readonly engine: Engine;
  readonly hooks: VmHooks;
  /** Absolute folders whose files are no base images: the store and the mount point. */
  readonly ownFolders: readonly string[];
  readonly runExport: RunExport;
  readonly runDiff: RunDiff;
  /** Default: nobody watches, nothing is in reserve. */
  readonly room?: StoreRoom;
  /** Told of what fails in the background. */
  readonly onProblem: (error: unknown) => void;
  readonly garbagePace?: GarbagePace;
}

/**
 * Operations on one VM run one after the other, those on different VMs at the same time.
 * All errors are `DiskError`s.
 */
export class VmService {
  readonly exposure: Exposure;
  readonly #context: VmContext;
  readonly #garbage: GarbageCollector;
  readonly #ownFolders: readonly string[];
  readonly #exportTools: ExportTools;
  readonly #runDiff: RunDiff;
  readonly #headroom: Headroom;

  constructor(options: VmServiceOptions) {
    const { store, bases, engine, hooks, ownFolders, garbagePace = USUAL_PACE } = options;
    this.#context = {
      store,
      bases,
      memory: new MemoryFiles(store),
      engine,
      hooks,
      chains: new Chains(engine.deltas),
      pins: new DeltaPins(),
      macs: new MacPool(store.catalog),
      room: options.room ?? plainRoom(store.layout.root),
      onGarbage: () => this.#garbage.schedule(),
    };
    this.exposure = new Exposure(store);
    this.#garbage = new GarbageCollector(this.#context, options.onProblem, garbagePace);
    this.#ownFolders = ownFolders;
    this.#headroom = new Headroom(store.layout.headroom);
    this.#exportTools = { run: options.runExport, ownFolders };
    this.#runDiff = options.runDiff;
  }

  /** Removes in the background what an earlier run left behind. */
  start(): void {
    this.#garbage.start();
    this.#headroom.start();
  }

  /** The store runs full: what can be removed is, now. */
  makeRoom(): void {
    this.#garbage.hurry();
  }

  /** Ends background work. The store stays locked until its owner closes it. */
  async stop(): Promise<void> {
    await this.#headroom.stop();
    await this.#garbage.stop();
  }

  list(): VmEntry[] {
    return this.#context.store.catalog.list();
  }

  damaged(): DamagedVm[] {
    return this.#context.store.catalog.damaged();
  }

  has(vm: string): boolean {
    return this.#context.store.catalog.find(vm) !== undefined;
  }

  /**
   * Runs `task` while no operation changes this VM.
   * @throws DiskError `not-found`, `damaged`.
   */
  exclusively<T>(vm: string, task: () => Promise<T>): Promise<T> {
    return withVm(this.#context, vm, task);
  }

  /** The MAC addresses of a VM that others have as well, with those. */
  sharedMacs(vm: string): { mac: string; vms: string[] }[] {
    const { store } = this.#context;
    const { catalog } = store;
    const entry = catalog.get(vm);
    return [...new Set(store.loadEntry(entry).nics.map(({ mac }) => mac))]
      .map((mac) => ({ mac, vms: catalog.macUsers(mac, entry.id) }))
      .filter(({ vms }) => vms.length > 0);
  }

  findById(id: string): VmEntry | undefined {
    return this.#context.store.catalog.findById(id);
  }

  /** @throws DiskError `not-found`, `damaged`. */
  read(vm: string): Manifest {
    return this.#context.store.load(vm);
  }

  /** Every VM with its manifest, a few at a time; those deleted meanwhile are left out. */
  async *readAll(): AsyncGenerator<{ readonly name: string; readonly manifest: Manifest }> {
    const { store } = this.#context;
    for await (const manifest of store.eachManifest(store.catalog.list())) {
      const entry = store.catalog.findById(manifest.id);
      if (entry !== undefined) yield { name: entry.name, manifest };
    }
  }

  chainFacts(top: DeltaId): ChainFacts {
    return this.#context.chains.facts(top);
  }

  readBase(id: string): BaseRecord {
    return this.#context.bases.read(id);
  }

  create(vm: string, disks: readonly DiskRequest[], hardware: HardwareRequest = {}): Promise<void> {
    return createVm(this.#context, vm, disks, hardware);
  }

  importImages(
    vm: string,
    images: readonly BaseRequest[],
    options: { readonly copy?: boolean; readonly hardware?: HardwareRequest } = {},
    work: Work = {},
  ): Promise<string[]> {
    const { copy = false, hardware = {} } = options;
    const ownFolders = this.#ownFolders;
    return importVm(this.#context, { vm, images, copy, hardware, ownFolders }, work);
  }

  importMachine(
    request: Omit<MachineImport, 'ownFolders'>,
    work: Work = {},
  ): Promise<ImportedMachine> {
    return importMachine(this.#context, { ...request, ownFolders: this.#ownFolders }, work);
  }

  async rename(vm: string, name: string): Promise<void> {
    checkName('VM', name);
    const context = this.#context;
    await withVm(context, vm, (entry) =>
      withNewName(context, name, async () => {
        const exposed = { vm, part: 'all' } as const;
        await refuseWhileHeld(context, exposed, `rename "${vm}"`, (holder) => holder.byPath);
        await context.store.rename(entry, name);
      }),
    );
    context.hooks.namesChanged(vm);
    context.hooks.namesChanged(name);
  }

  /** @returns how many of its deltas stay, because linked clones stand on them. */
  delete(vm: string): Promise<number> {
    return deleteVm(this.#context, this.#headroom, vm);
  }

  /** What `setHardware` would refuse is refused. */
  async checkHardware(vm: string, change: HardwareRequest): Promise<void> {
    const context = this.#context;
    await withVm(context, vm, (entry) =>
      Preparation.run(context, async ({ macs }) => {
        changeHardware(change, macs, context.store.loadEntry(entry), entry.id);
      }),
    );
  }

  async setHardware(vm: string, change: HardwareRequest): Promise<void> {
    const context = this.#context;
    await withVm(context, vm, (entry) =>
      Preparation.run(context, async (preparation) => {
        const before = context.store.loadEntry(entry);
        const hardware = changeHardware(change, preparation.macs, before, entry.id);
        const pending = await context.store.prepareChange(entry, { ...before, ...hardware });
        await preparation.commit(pending);
      }),
    );
    context.hooks.namesChanged(vm);
  }

  /** @throws DiskError `not-found` for an unknown disk, `busy` while a disk is in use. */
  changeKinds(vm: string, changes: readonly KindChange[]): Promise<void> {
    return changeKinds(this.#context, vm, changes);
  }

  /** For who keeps changes off: `exclusively`. @throws DiskError `busy` as in `context.ts`. */
  refuseUnnamedUsers(vm: string, what: string): Promise<void> {
    return refuseUnnamedUsers(this.#context, vm, what);
  }

  /** For who is about to start the guest. */
  resetImmutable(vm: string): Promise<void> {
    return resetImmutable(this.#context, vm);
  }

  addDisk(vm: string, request: DiskRequest): Promise<DiskRecord> {
    return addDisk(this.#context, vm, request);
  }

  removeDisk(vm: string, disk: string): Promise<void> {
    return this.#headroom.lend(() => removeDisk(this.#context, vm, disk));
  }

  resizeDisk(vm: string, request: Resize): Promise<void> {
    return resizeDisk(this.#context, vm, request);
  }

  takeSnapshot(vm: string, request: SnapshotRequest, work: Work = {}): Promise<SnapshotRecord> {
    return takeSnapshot(this.#context, vm, request, work);
  }

  /**
   * The memory that the next run of a VM goes on with. For who keeps changes off: `exclusively`.
   * @throws DiskError `exists` when what it belongs to was changed, `damaged`.
   */
  usableMemory(vm: string): Promise<UsableMemory | undefined> {
    return usableMemory(this.#context, vm, this.read(vm));
  }

  /** The guest that was given the memory is about to go. @throws DiskError as above. */
  useMemory(vm: string): Promise<void> {
    return useMemory(this.#context, vm);
  }

  /** Lets the next run start cold. */
  discardMemory(vm: string): Promise<void> {
    return discardMemory(this.#context, vm);
  }

  deleteSnapshot(vm: string, snapshot: string): Promise<void> {
    return this.#headroom.lend(() => deleteSnapshot(this.#context, vm, snapshot));
  }

  renameSnapshot(vm: string, snapshot: string, name: string): Promise<SnapshotRecord> {
    return renameSnapshot(this.#context, vm, snapshot, name);
  }

  restoreSnapshot(
    vm: string,
    request: RestoreRequest,
  ): Promise<{ restored: SnapshotRecord; saved: SnapshotRecord | undefined }> {
    return restoreSnapshot(this.#context, vm, request);
  }

  /** Which blocks of the disks differ between a snapshot and another state. */
  diff(request: DiffRequest, work: Work = {}): Promise<DiffPage> {
    return diffDisks(this.#context, request, this.#runDiff, work);
  }

  clone(request: CloneRequest, work: Work = {}): Promise<CloneOutcome> {
    return cloneVm(this.#context, request, work);
  }

  exportOva(request: OvaRequest, work: Work = {}): Promise<ExportOutcome> {
    return exportOva(this.#context, request, this.#exportTools, work);
  }

  export(request: ExportRequest, work: Work = {}): Promise<ExportOutcome> {
    return exportDisk(this.#context, request, this.#exportTools, work);
  }

  /** Texts that point at the exposed disks of a VM. @returns their paths, the main one first. */
  writeMachineFiles(request: MachineFilesRequest): Promise<string[]> {
    return writeMachineFiles(this.#context, request, this.#ownFolders);
  }

  /**
   * Takes the bases that a VM stands on as they are now; answers the images that had changed.
   * @throws DiskError `busy` while a disk on one of them is in use.
   */
  acceptBases(vm: string): Promise<string[]> {
    return acceptBases(this.#context, vm);
  }

  /**
   * Checks the store, or one VM of it, while it is in use.
   * @throws DiskError `not-found`, `interrupted`.
   */
  check(request: CheckRequest, work: Work = {}): Promise<CheckOutcome> {
    return new StoreCheck(this.#context, this.#garbage, request, work).run();
  }

  /** Gives back space of a VM that nobody needs, while it is in use. */
  compact(vm: string, work: Work = {}): Promise<CompactOutcome> {
    return compactVm(this.#context, this.#garbage, vm, work);
  }

  collectGarbage(dryRun: boolean): Promise<Collected> {
    return this.#headroom.lend(() => this.#garbage.collect(dryRun));
  }
}
