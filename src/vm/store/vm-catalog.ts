/** What is known of every VM without reading its manifest: a few hundred bytes each. */
import { DiskError } from '../../common/errors.js';
import { Mutex } from '../../common/mutex.js';
import { type Manifest, macsOf, type OriginRecord } from './manifest.js';

/** The part of a manifest that stays in memory. */
export interface VmFacts {
  readonly vcpus: number;
  readonly memory: number;
  readonly nicCount: number;
  readonly diskCount: number;
  /** Sum of the virtual sizes, bytes. */
  readonly size: number;
  readonly snapshotCount: number;
  readonly created: string;
  readonly macs: readonly string[];
  readonly origin: OriginRecord | undefined;
}

/** One VM. The object stays the same through renames. */
export interface VmEntry {
  readonly name: string;
  readonly id: string;
  readonly number: number;
  /** One change of a VM at a time. */
  readonly mutex: Mutex;
  readonly facts: VmFacts;
}

/** A VM whose manifest can't be used. */
export interface DamagedVm {
  readonly name: string;
  readonly problem: DiskError;
}

interface MutableEntry extends VmEntry {
  name: string;
  facts: VmFacts;
}

/**
 * INVARIANT: a name belongs to at most one of: a VM, a damaged VM, a reservation.
 * INVARIANT: ids and numbers of VMs are unique.
 */
export class VmCatalog {
  readonly #byName = new Map<string, MutableEntry>();
  readonly #byId = new Map<string, MutableEntry>();
  readonly #damaged = new Map<string, DamagedVm>();
  readonly #reserved = new Set<string>();
  readonly #byNumber = new Map<number, MutableEntry>();
  /** How many VMs use a MAC address: clones may share one on purpose. */
  readonly #macs = new Map<string, number>();
  #highestNumber = 0;

  get size(): number {
    return this.#byName.size;
  }

  /** By name. */
  list(): VmEntry[] {
    return [...this.#byName.values()].sort((a, b) => compareNames(a.name, b.name));
  }

  damaged(): DamagedVm[] {
    return [...this.#damaged.values()].sort((a, b) => compareNames(a.name, b.name));
  }

  find(name: string): VmEntry | undefined {
    return this.#byName.get(name);
  }

  findByNumber(number: number): VmEntry | undefined {
    return this.#byNumber.get(number);
  }

  findById(id: string): VmEntry | undefined {
    return this.#byId.get(id);
  }

  /** @throws DiskError `not-found`, or `damaged` with the reason. */
  get(name: string): VmEntry {
    const found = this.#byName.get(name);
    if (found !== undefined) return found;
    const damaged = this.#damaged.get(name);
    if (damaged !== undefined) throw damaged.problem;
    throw new DiskError('not-found', `there is no VM "${name}"`, {
      hint: 'list them: layerdisk list',
      errno: 'ENOENT',
    });
  }

  /**
   * Takes a name for a VM to be made; given back by `release`.
   * @throws DiskError `exists`.
   */
  reserve(name: string): void {
    const hint = 'choose another name';
    if (this.#byName.has(name) || this.#damaged.has(name)) {
      throw new DiskError('exists', `there is already a VM "${name}"`, { hint });
    }
    if (this.#reserved.has(name)) {
      throw new DiskError('exists', `a VM "${name}" is just being made`, { hint });
    }
    this.#reserved.add(name);
  }

  release(name: string): void {
    this.#reserved.delete(name);
  }

  get highestNumber(): number {
    return this.#highestNumber;
  }

  hasMac(mac: string): boolean {
    return this.#macs.has(mac);
  }

  /** Other VMs that use this address. */
  macUsers(mac: string, except: string | undefined): string[] {
    if (!this.#macs.has(mac)) return [];
    const users = [...this.#byId.values()].filter((each) => each.facts.macs.includes(mac));
    return users.filter((each) => each.id !== except).map((each) => each.name);
  }

  /** Linked clones of a VM, and theirs, and so on. */
  descendants(id: string): VmEntry[] {
    return this.list().filter((each) => each.facts.origin?.lineage.includes(id));
  }

  /**
   * Adds a VM.
   * @throws DiskError `damaged` when another one has its id or number.
   */
  add(name: string, manifest: Manifest): VmEntry {
    const twin = this.#byId.get(manifest.id);
    if (twin !== undefined || this.#byNumber.has(manifest.number)) {
      const which = twin === undefined ? 'another VM' : `VM "${twin.name}"`;
      throw new DiskError('damaged', `VM "${name}": its manifest has the identity of ${which}`, {
        hint: `was vms/${name}.json copied by hand? Move it away, and use: layerdisk clone`,
      });
    }
    const { id, number } = manifest;
    const facts = factsOf(manifest);
    const entry: MutableEntry = { name, id, number, mutex: new Mutex(), facts };
    this.#byName.set(name, entry);
    this.#byId.set(id, entry);
    this.#byNumber.set(number, entry);
    this.#highestNumber = Math.max(this.#highestNumber, number);
    this.#countMacs(facts.macs, 1);
    return entry;
  }

  /** Adds a VM whose manifest was damaged until now. @returns how. @throws DiskError as `add`. */
  restore(name: string, manifest: Manifest): DiskError {
    const damaged = this.#damaged.get(name);
    if (damaged === undefined) throw new Error(`bug: VM ${name} is not damaged`);
    this.add(name, manifest);
    this.#damaged.delete(name);
    return damaged.problem;
  }

  /** Whether there is a VM of that name, damaged or not. */
  knows(name: string): boolean {
    return this.#byName.has(name) || this.#damaged.has(name);
  }

  addDamaged(name: string, problem: DiskError): void {
    this.#damaged.set(name, { name, problem });
  }

  update(id: string, manifest: Manifest): void {
    const entry = this.#mutable(id);
    this.#countMacs(entry.facts.macs, -1);
    entry.facts = factsOf(manifest);
    this.#countMacs(entry.facts.macs, 1);
  }

  rename(id: string, name: string): void {
    const entry = this.#mutable(id);
    this.#byName.delete(entry.name);
    entry.name = name;
    this.#byName.set(name, entry);
  }

  remove(id: string): void {
    const entry = this.#mutable(id);
    this.#byName.delete(entry.name);
    this.#byId.delete(id);
    this.#byNumber.delete(entry.number);
    this.#countMacs(entry.facts.macs, -1);
  }

  #mutable(id: string): MutableEntry {
    const entry = this.#byId.get(id);
    if (entry === undefined) throw new Error(`bug: no VM with id ${id}`);
    return entry;
  }

  #countMacs(macs: readonly string[], by: number): void {
    for (const mac of macs) {
      const count = (this.#macs.get(mac) ?? 0) + by;
      if (count === 0) this.#macs.delete(mac);
      else this.#macs.set(mac, count);
    }
  }
}

function factsOf(manifest: Manifest): VmFacts {
  return {
    vcpus: manifest.vcpus,
    memory: manifest.memory,
    nicCount: manifest.nics.length,
    diskCount: manifest.disks.length,
    size: manifest.disks.reduce((sum, each) => sum + each.size, 0),
    snapshotCount: manifest.snapshots.length,
    created: manifest.created,
    macs: macsOf(manifest),
    origin: manifest.origin,
  };
}

/** By code unit: quick, and the same everywhere. */
function compareNames(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
