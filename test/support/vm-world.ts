/**
 * A store with VMs for tests: the service under test, a fake engine, and an independent model of
 * all contents.
 */
import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DiskError } from '../../src/common/errors.js';
import { KiB } from '../../src/common/units.js';
import type { BaseSpec } from '../../src/engine/base.js';
import type { DeltaId } from '../../src/engine/delta-id.js';
import type { Engine } from '../../src/engine/engine.js';
import { describeBase } from '../../src/formats/base.js';
import { type BaseFingerprint, filesOf, findChange } from '../../src/formats/fingerprint.js';
import type { RunDiff } from '../../src/vm/diffs.js';
import type { ExportJob } from '../../src/vm/exchange/exports.js';
import { BaseRecords, type BaseSources } from '../../src/vm/store/base-records.js';
import type { Manifest } from '../../src/vm/store/manifest.js';
import { VmStore } from '../../src/vm/store/vm-store.js';
import type { GarbagePace } from '../../src/vm/upkeep/garbage.js';
import { VmService } from '../../src/vm/vm-service.js';
import { FakeEngine } from './fake-engine.js';
import { FakeHooks } from './fake-hooks.js';
import { Faults, faultyFiles } from './faults.js';
import { RealEngine } from './real-engine.js';

export const DISK_SIZE = 32 * KiB;

/** Raw files as bases; a fingerprint is path and hash. */
const rawBases: BaseSources = {
  async describeBase(path, { format }) {
    const content = await readBase(path);
    const images = [{ path, format: format === 'auto' ? 'raw' : format }];
    const spec = { id: '', images, virtualSize: content.length, allocatedSize: content.length };
    return { spec, fingerprint: { path, hash: hashOf(content) } };
  },
  async findChange(fingerprint) {
    const { path, hash } = fingerprint as { path: string; hash: string };
    return hashOf(await readBase(path)) === hash ? undefined : `${path}: other content`;
  },
  filesOf: (fingerprint) => [(fingerprint as { path: string }).path],
};

/** The formats themselves. */
const formatBases: BaseSources = {
  describeBase,
  findChange: (fingerprint) => findChange(fingerprint as BaseFingerprint),
  filesOf: (fingerprint) => filesOf(fingerprint as BaseFingerprint),
};

async function readBase(path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (error) {
    throw new DiskError('not-found', `${path}: no such file`, { cause: error });
  }
}

function hashOf(content: Buffer): string {
  return createHash('sha256').update(content).digest('hex');
}

/** An engine with a way to its disks, as guests have one. */
export interface TestEngine extends Engine {
  write(head: DeltaId, offset: number, data: Buffer): Promise<void>;
  /** All bytes of a head (`writable`) or sealed delta. */
  readAll(top: DeltaId, writable: boolean): Promise<Buffer>;
  /** An orderly end and a new start. */
  restart(): Promise<void>;
  close(): Promise<void>;
}

/**
 * Which engine stands below: the fake one can fail and be watched, the real one is the one that
 * ships.
 */
export const ENGINES = ['fake', 'real'] as const;
export type EngineKind = (typeof ENGINES)[number];

/** Disk contents by `vm/disk` and `vm@snapshot/disk`. */
export type Contents = Map<string, Buffer>;

export class VmWorld {
  readonly folder: string;
  readonly faults = new Faults();
  readonly hooks = new FakeHooks(this.faults);
  readonly problems: unknown[] = [];
  /** What the format side was asked to write. */
  readonly exports: ExportJob[] = [];
  /** What comparing two open volumes finds. */
  runDiff: RunDiff = async () => ({ extents: [] });
  /** What happens while it writes. */
  duringExport: () => Promise<void> = async () => {};
  /** For the next start; the usual one is too slow for a test to wait for. */
  garbagePace: GarbagePace = { restMs: 3_600_000, retryMs: 3_600_000, trashAgeMs: 3_600_000 };
  store!: VmStore;
  service!: VmService;
  bases!: BaseRecords;
  engine!: TestEngine;
  readonly #kind: EngineKind;
  /** The independent model: what every disk and snapshot must contain. */
  model: Contents = new Map();
  #stamp = 0;
  #epoch: string | undefined;

  private constructor(folder: string, kind: EngineKind) {
    this.folder = folder;
    this.#kind = kind;
  }

  /** @param parent where its folder is made. */
  static async create(kind: EngineKind = 'fake', parent: string = tmpdir()): Promise<VmWorld> {
    const world = new VmWorld(await mkdtemp(join(parent, 'layerdisk-vm-')), kind);
    await world.#open();
    return world;
  }

  /**
   * Starts the real engine on a folder that another world left, or a copy of it, with the model of
   * that one.
   * @param epoch after a power cut: another one than before.
   */
  static async adopt(folder: string, model: Contents, epoch?: string): Promise<VmWorld> {
    const world = new VmWorld(folder, 'real');
    world.#epoch = epoch;
    for (const [key, bytes] of model) world.model.set(key, Buffer.from(bytes));
    await world.#open();
    return world;
  }

  /** The fake engine, for tests that look inside it. */
  get fake(): FakeEngine {
    if (this.engine instanceof FakeEngine) return this.engine;
    throw new Error('this test needs the fake engine');
  }

  /** Ends the daemon and starts another one on the same store. */
  async restart(): Promise<void> {
    this.faults.record();
    await this.service.stop();
    await this.engine.restart();
    this.store.close();
    await this.#open();
  }

  #realEngine(resolveBase: (id: string) => Promise<BaseSpec>): RealEngine {
    const epoch = this.#epoch === undefined ? {} : { epoch: this.#epoch };
    return new RealEngine({ store: this.store.layout.root, resolveBase, ...epoch });
  }

  /** The real engine, for tests that kill it. */
  get real(): RealEngine {
    if (this.engine instanceof RealEngine) return this.engine;
    throw new Error('this test needs the real engine');
  }

  /** The daemon is killed, and another one starts on the same store. */
  async kill(): Promise<void> {
    this.real.die();
    this.store.close();
    await this.#open();
  }

  /** Ends the daemon; the folder stays. */
  async stop(): Promise<void> {
    this.faults.record();
    await this.service.stop();
    await this.engine.close();
    this.store.close();
  }

  async destroy(): Promise<void> {
    await this.stop();
    await rm(this.folder, { recursive: true, force: true });
  }

  async #open(): Promise<void> {
    // What a crash leaves is judged on a copy.
    const options = { acceptCopy: true };
    const folder = join(this.folder, 'store');
    this.store = await VmStore.open(folder, faultyFiles(this.faults), options);
    const { store } = this;
    this.bases = new BaseRecords(store, this.#kind === 'fake' ? rawBases : formatBases);
    const resolveBase = (id: string) => this.bases.resolve(id);
    this.engine ??=
      this.#kind === 'fake'
        ? new FakeEngine(resolveBase, this.faults)
        : this.#realEngine(resolveBase);
    this.service = new VmService({
      store,
      bases: this.bases,
      engine: this.engine,
      hooks: this.hooks,
      ownFolders: [store.layout.root, this.mountpoint],
      runExport: async (job) => {
        this.exports.push(job);
        await this.duringExport();
        return { files: [job.path], storedSize: 0 };
      },
      runDiff: (order, work) => this.runDiff(order, work),
      onProblem: (problem) => this.problems.push(problem),
      garbagePace: this.garbagePace,
    });
  }

  get mountpoint(): string {
    return join(this.folder, 'mnt');
  }

  /** A raw file with this content, to import. */
  async rawFile(name: string, content: Buffer): Promise<string> {
    const path = join(this.folder, name);
    await writeFile(path, content);
    return path;
  }

  manifest(vm: string): Manifest {
    return this.service.read(vm);
  }

  /** Writes as a guest would: fresh recognisable bytes into a disk and into the model. */
  async write(vm: string, offset: number, length: number, disk = 'disk0'): Promise<void> {
    this.#stamp += 1;
    await this.#put(vm, offset, Buffer.alloc(length, `<${this.#stamp}:${vm}/${disk}>`), disk);
  }

  /** The same with zeroes, which take space like all that is written. */
  async writeZeroes(vm: string, offset: number, length: number, disk = 'disk0'): Promise<void> {
    await this.#put(vm, offset, Buffer.alloc(length), disk);
  }

  async #put(vm: string, offset: number, data: Buffer, disk: string): Promise<void> {
    const head = this.manifest(vm).disks.find((each) => each.name === disk)?.head ?? '';
    await this.engine.write(head, offset, data);
    const expected = this.model.get(`${vm}/${disk}`);
    if (expected === undefined) throw new Error(`no model of ${vm}/${disk}`);
    data.copy(expected, offset);
  }

  /** Creates a VM of empty disks, in the model, too. */
  async create(vm: string, disks: readonly string[] = ['disk0']): Promise<void> {
    const requests = disks.map((name) => ({ name, size: DISK_SIZE }));
    await this.service.create(vm, requests);
    for (const disk of disks) this.model.set(`${vm}/${disk}`, Buffer.alloc(DISK_SIZE));
  }

  async import(vm: string, content: Buffer, copy: boolean): Promise<string> {
    const path = await this.rawFile(`${vm}.img`, content);
    await this.service.importImages(vm, [{ path, options: { format: 'auto' } }], { copy });
    this.model.set(`${vm}/disk0`, Buffer.from(content));
    return path;
  }

  async take(vm: string, name: string, memory = false): Promise<void> {
    await this.service.takeSnapshot(vm, { name, memory });
    this.copyModel(`${vm}/`, `${vm}@${name}/`);
  }

  async restore(vm: string, name: string, saveCurrent?: string): Promise<void> {
    const rest = saveCurrent === undefined ? { discard: true } : { saveCurrent };
    await this.service.restoreSnapshot(vm, { snapshot: name, ...rest });
    if (saveCurrent !== undefined) this.copyModel(`${vm}/`, `${vm}@${saveCurrent}/`);
    this.forget(`${vm}/`);
    this.copyModel(`${vm}@${name}/`, `${vm}/`);
  }

  async addDisk(vm: string, name: string): Promise<void> {
    await this.service.addDisk(vm, { name, size: DISK_SIZE });
    this.model.set(`${vm}/${name}`, Buffer.alloc(DISK_SIZE));
  }

  async removeDisk(vm: string, name: string): Promise<void> {
    await this.service.removeDisk(vm, name);
    this.model.delete(`${vm}/${name}`);
  }

  async resize(vm: string, size: number, disk = 'disk0'): Promise<void> {
    await this.service.resizeDisk(vm, { disk, size, shrink: true });
    const bytes = Buffer.alloc(size);
    this.model.get(`${vm}/${disk}`)?.copy(bytes);
    this.model.set(`${vm}/${disk}`, bytes);
  }

  async clone(source: string, name: string, mode: 'linked' | 'full'): Promise<void> {
    const [vm = '', snapshot] = source.split('@');
    const request = { vm, name, mode, hardware: {} };
    const { tookSnapshot } = await this.service.clone(
      snapshot === undefined ? request : { ...request, snapshot },
    );
    if (tookSnapshot !== undefined) this.copyModel(`${vm}/`, `${vm}@${tookSnapshot}/`);
    this.copyModel(`${source}/`, `${name}/`);
  }

  async deleteSnapshot(vm: string, name: string): Promise<void> {
    await this.service.deleteSnapshot(vm, name);
    this.forget(`${vm}@${name}/`);
  }

  async delete(vm: string): Promise<number> {
    const kept = await this.service.delete(vm);
    this.forget(`${vm}/`);
    this.forget(`${vm}@`);
    return kept;
  }

  copyModel(from: string, to: string): void {
    for (const [key, bytes] of [...this.model]) {
      if (key.startsWith(from)) this.model.set(to + key.slice(from.length), Buffer.from(bytes));
    }
  }

  /** Follows the renaming of a VM. */
  moveModel(vm: string, name: string): void {
    for (const mark of ['/', '@']) {
      this.copyModel(vm + mark, name + mark);
      this.forget(vm + mark);
    }
  }

  forget(prefix: string): void {
    for (const key of [...this.model.keys()]) if (key.startsWith(prefix)) this.model.delete(key);
  }

  /** What every disk and every snapshot of every VM really contains. */
  async contents(): Promise<Contents> {
    const found: Contents = new Map();
    for (const { name } of this.service.list()) {
      const { disks, snapshots } = this.manifest(name);
      for (const disk of disks)
        found.set(`${name}/${disk.name}`, await this.engine.readAll(disk.head, true));
      for (const snapshot of snapshots) {
        for (const disk of snapshot.disks) {
          const key = `${name}@${snapshot.name}/${disk.name}`;
          found.set(key, await this.engine.readAll(disk.delta, false));
        }
      }
    }
    return found;
  }
}

/**
 * `name: parent` for every snapshot and `*: current`, sorted: the whole shape of a tree in one
 * value.
 */
export function edgesOf({ snapshots, current }: Manifest): string[] {
  const nameOf = (id: string | null) => snapshots.find((each) => each.id === id)?.name ?? '-';
  const edges = snapshots.map((each) => `${each.name}: ${nameOf(each.parent)}`);
  return [...edges, `*: ${nameOf(current)}`].sort();
}

/** Contents as comparable text: a difference shows which disk is wrong, and where. */
export function digestContents(contents: Contents): Record<string, string> {
  const sorted = [...contents].sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(
    sorted.map(([key, bytes]) => [key, createHash('sha256').update(bytes).digest('hex')]),
  );
}

/**
 * The code of the `DiskError` that a promise rejects with; anything else is a failure of the test.
 */
export async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof DiskError) return error.code;
    throw error;
  }
  return 'ok';
}
