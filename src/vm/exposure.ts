/** What the mount point shows of the store: names, nodes and the deltas behind them. */
import type { DeltaId } from '../engine/delta-id.js';
import { kindOf } from './disk-kinds.js';
import type { GoneName } from './hooks.js';
import { type Manifest, NODE } from './store/manifest.js';
import type { VmEntry } from './store/vm-catalog.js';
import type { VmStore } from './store/vm-store.js';

/** A disk's raw file. */
export interface ExposedDisk {
  /** The file's name: `<disk>.raw`. */
  readonly fileName: string;
  readonly node: number;
  /** Bytes. */
  readonly size: number;
  /** The chain behind it: a head, or a sealed delta. */
  readonly top: DeltaId;
  /** Whether the chain ends in a head. */
  readonly writable: boolean;
  /** Whether the file must not be opened for writing. */
  readonly readOnly: boolean;
}

export interface ExposedSnapshot {
  readonly name: string;
  /** Of its folder. */
  readonly node: number;
  /** Milliseconds since the epoch. */
  readonly created: number;
  readonly disks: readonly ExposedDisk[];
}

/**
 * One VM's folder: the disks, `snapshots/`, `vm.json`. Nodes are unique within the VM and never
 * used for anything else; with the VM's number they make inode numbers that outlive the daemon.
 */
export interface ExposedVm {
  readonly name: string;
  /** Unique in the store, below 2^32. */
  readonly number: number;
  /** Milliseconds since the epoch. */
  readonly created: number;
  readonly nodes: {
    readonly folder: number;
    readonly snapshots: number;
    readonly configuration: number;
  };
  readonly disks: readonly ExposedDisk[];
  readonly snapshots: readonly ExposedSnapshot[];
  /** The text of `vm.json`. */
  readonly configuration: string;
}

/** Read-only and synchronous: an answer is the state at one instant. */
export class Exposure {
  readonly #store: VmStore;
  /** Asked for at every look at a file: as long as the manifest is the same, so is the answer. */
  readonly #exposed = new WeakMap<Manifest, ExposedVm>();

  constructor(store: VmStore) {
    this.#store = store;
  }

  /** All VMs that can be shown, by name. */
  list(): { readonly name: string; readonly number: number }[] {
    return this.#store.catalog.list().map(({ name, number }) => ({ name, number }));
  }

  /** @returns undefined when there is no such VM. @throws DiskError `damaged`. */
  find(name: string): ExposedVm | undefined {
    return this.#expose(this.#store.catalog.find(name));
  }

  /** The same by the upper half of its inode numbers. */
  findByNumber(number: number): ExposedVm | undefined {
    return this.#expose(this.#store.catalog.findByNumber(number));
  }

  /** VMs whose manifest was written at or after `when`, milliseconds since the epoch. */
  changedSince(when: number): ExposedVm[] {
    return this.#store.catalog
      .list()
      .filter(({ name }) => (this.#store.changedAt(name) ?? 0) >= when)
      .flatMap(({ name }) => this.find(name) ?? []);
  }

  #expose(entry: VmEntry | undefined): ExposedVm | undefined {
    if (entry === undefined) return undefined;
    const manifest = this.#store.loadEntry(entry);
    const known = this.#exposed.get(manifest);
    // A renamed VM keeps its manifest.
    if (known?.name === entry.name) return known;
    const made = expose(entry, manifest);
    this.#exposed.set(manifest, made);
    return made;
  }
}

function expose(entry: VmEntry, manifest: Manifest): ExposedVm {
  let configuration: string | undefined;
  return {
    name: entry.name,
    number: entry.number,
    created: Date.parse(manifest.created),
    nodes: { folder: NODE.vm, snapshots: NODE.snapshots, configuration: NODE.configuration },
    disks: manifest.disks.map(({ name, node, size, kind, head }) => ({
      fileName: diskFileName(name),
      node,
      size,
      top: head,
      writable: true,
      readOnly: kind === 'read-only',
    })),
    snapshots: manifest.snapshots.map((snapshot) => ({
      name: snapshot.name,
      node: snapshot.node,
      created: Date.parse(snapshot.created),
      disks: snapshot.disks.map(({ name, node, size, delta }) => ({
        fileName: diskFileName(name),
        node,
        size,
        top: delta,
        writable: false,
        readOnly: true,
      })),
    })),
    get configuration() {
      configuration ??= configurationOf(this.name, manifest);
      return configuration;
    },
  };
}

/** The name of a disk's raw file. */
function diskFileName(disk: string): string {
  return `${disk}.raw`;
}

/** For the kernel, when a snapshot has lost its name. */
export function goneSnapshot({ number }: VmEntry, name: string): GoneName {
  return { vmNumber: number, folder: NODE.snapshots, name };
}

/** The same for a disk of the VM. */
export function goneDisk({ number }: VmEntry, disk: string): GoneName {
  return { vmNumber: number, folder: NODE.vm, name: diskFileName(disk) };
}

/** Path of an exposed file below the mount point. */
export function exposedPath(vm: string, snapshot: string | undefined, disk: string): string {
  const file = diskFileName(disk);
  return snapshot === undefined ? `${vm}/${file}` : `${vm}/snapshots/${snapshot}/${file}`;
}

/** The configuration as users see it: names and hardware, nothing of the store's inside. */
function configurationOf(name: string, manifest: Manifest): string {
  const { id, created, vcpus, memory, nics, disks, snapshots, current, origin } = manifest;
  const names = new Map(snapshots.map((snapshot) => [snapshot.id, snapshot.name]));
  const shown = {
    name,
    id,
    created,
    vcpus,
    memory,
    nics,
    disks: disks.map((disk) => ({
      name: disk.name,
      size: disk.size,
      allocation: disk.allocation,
      kind: kindOf(disk),
      file: diskFileName(disk.name),
    })),
    snapshots: snapshots.map((snapshot) => ({
      name: snapshot.name,
      created: snapshot.created,
      message: snapshot.message,
      parent: snapshot.parent === null ? undefined : names.get(snapshot.parent),
      current: snapshot.id === current,
      consistency: snapshot.consistency,
      memoryState: snapshot.memoryState?.size,
    })),
    origin: origin === undefined ? undefined : `${origin.vm}@${origin.snapshot}`,
  };
  return `${JSON.stringify(shown, null, 2)}\n`;
}
