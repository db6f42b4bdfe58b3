/**
 * VMs of which a test knows every byte: random work over the raw files and the control socket, each
 * step judged against a model. The daemon may die and come back at any moment: what was
 * acknowledged is there, and what its death cut short is there wholly or not at all.
 */
import { constants } from 'node:fs';
import { type FileHandle, open, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { MiB } from '../../src/common/units.js';
import type { MethodName, Params } from '../../src/control/protocol.js';
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, fallocate } from '../../src/storage/libc.js';
import { messageBuffer } from '../../src/transport/kernel/aligned-buffer.js';
import type { TestDaemon } from './daemon.js';
import type { Random } from './random.js';
import { ReferenceDisk } from './reference-disk.js';
import { stampedPattern } from './stamped-pattern.js';
import { ask, askOnce } from './takeover.js';

export const MODELLED_SIZE = 2 * MiB;
const MOST_BYTES = 96 * 1024;
const MOST_VMS = 3;
const MOST_SNAPSHOTS = 5;

interface Modelled {
  head: ReferenceDisk;
  readonly snapshots: Map<string, ReferenceDisk>;
}

export class ModelledVms {
  readonly #daemon: TestDaemon;
  readonly #prefix: string;
  readonly #random: Random;
  readonly #vms = new Map<string, Modelled>();
  /** For O_DIRECT, which wants it aligned. */
  readonly #memory = messageBuffer(MODELLED_SIZE, 0).bytes;
  #made = 0;
  #generation = 0;
  #steps = 0;
  /** Snapshots deleted, clones made, and the like. */
  readonly counts = new Map<string, number>();

  /** @param prefix of all their names, and nobody else's. */
  constructor(daemon: TestDaemon, prefix: string, random: Random) {
    this.#daemon = daemon;
    this.#prefix = prefix;
    this.#random = random;
  }

  get steps(): number {
    return this.#steps;
  }

  /** The first one: over a base that is nobody's but its own. @param image raw. */
  async begin(image: string): Promise<void> {
    const name = this.#newName();
    await ask(this.#daemon, 'import', { vm: name, files: [image], format: 'raw' });
    const head = new ReferenceDisk(MODELLED_SIZE);
    head.write(0, await readFile(image));
    this.#vms.set(name, { head, snapshots: new Map() });
  }

  /** @throws Error that says what differs from the model. */
  async step(): Promise<void> {
    this.#steps += 1;
    const vm = this.#random.pick([...this.#vms.keys()]);
    const dice = this.#random.below(100);
    if (dice < 60) return this.#write(vm);
    if (dice < 70) return this.#compareOne(vm);
    if (dice < 79) return this.#take(vm);
    if (dice < 83) return this.#deleteSnapshot(vm);
    if (dice < 88) return this.#restore(vm);
    if (dice < 93) return this.#clone(vm);
    if (dice < 95) return this.#deleteVm(vm);
    if (dice < 97) return this.#rename(vm);
    if (dice < 98) return this.#random.below(2) === 0 ? this.#collect() : this.#compact(vm);
    return this.#export(vm);
  }

  /** Compares every byte, past the page cache. @throws Error that says what differs. */
  async compareAll(): Promise<void> {
    await this.#compareNames();
    for (const [vm, { head, snapshots }] of this.#vms) {
      await this.#compare(vm, undefined, head, true);
      for (const [name, disk] of snapshots) await this.#compare(vm, name, disk, true);
    }
  }

  async removeAll(): Promise<void> {
    for (const vm of this.#vms.keys()) await ask(this.#daemon, 'delete', { vm });
    this.#vms.clear();
  }

  #newName(): string {
    this.#made += 1;
    return `${this.#prefix}${this.#made}`;
  }

  #get(vm: string): Modelled {
    const found = this.#vms.get(vm);
    if (found === undefined) throw new Error(`the test lost ${vm}`);
    return found;
  }

  /** @returns whether it was done: `isDone` says it when the daemon died before it answered. */
  async #do<M extends MethodName>(
    method: M,
    params: Params<M>,
    isDone: () => Promise<boolean>,
  ): Promise<boolean> {
    const answer = await askOnce(this.#daemon, method, params);
    const done = answer !== undefined || (await isDone());
    const what = done ? method : `${method} undone`;
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
    return done;
  }

  async #snapshotsOf(vm: string): Promise<string[]> {
    return (await ask(this.#daemon, 'snapshot.list', { vm })).map(({ name }) => name);
  }

  async #isThere(vm: string): Promise<boolean> {
    return (await ask(this.#daemon, 'list', {})).some(({ name }) => name === vm);
  }

  async #write(vm: string): Promise<void> {
    const { head } = this.#get(vm);
    const file = await open(this.#daemon.rawFile(vm), 'r+');
    try {
      for (let count = 1 + this.#random.below(6); count > 0; count -= 1) {
        const offset = this.#random.below(MODELLED_SIZE);
        const most = Math.min(MOST_BYTES, MODELLED_SIZE - offset);
        const length = 1 + this.#random.below(most);
        if (this.#random.below(8) === 0) {
          fallocate(file.fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, offset, length);
          head.discard(offset, length);
          continue;
        }
        if (this.#random.below(8) === 0) {
          await this.#put(vm, file, Buffer.alloc(length), offset);
          head.discard(offset, length);
          continue;
        }
        this.#generation += 1;
        const bytes = stampedPattern(this.#generation, offset, length);
        await this.#put(vm, file, bytes, offset);
        head.write(offset, bytes);
      }
      if (this.#random.below(3) === 0) await file.sync();
    } finally {
      await file.close();
    }
  }

  async #put(vm: string, file: FileHandle, bytes: Buffer, offset: number): Promise<void> {
    const { bytesWritten } = await file.write(bytes, 0, bytes.length, offset);
    if (bytesWritten === bytes.length) return;
    throw new Error(`${vm}: wrote ${bytesWritten} of ${bytes.length}`);
  }

  async #take(vm: string): Promise<void> {
    const { head, snapshots } = this.#get(vm);
    if (snapshots.size >= MOST_SNAPSHOTS) return this.#deleteSnapshot(vm);
    const snapshot = this.#newName();
    const isDone = async () => (await this.#snapshotsOf(vm)).includes(snapshot);
    if (!(await this.#do('snapshot.take', { vm, snapshot }, isDone))) return;
    snapshots.set(snapshot, head.copy());
  }

  async #deleteSnapshot(vm: string): Promise<void> {
    const { snapshots } = this.#get(vm);
    if (snapshots.size === 0) return this.#take(vm);
    const snapshot = this.#random.pick([...snapshots.keys()]);
    const isDone = async () => !(await this.#snapshotsOf(vm)).includes(snapshot);
    if (!(await this.#do('snapshot.delete', { vm, snapshot }, isDone))) return;
    snapshots.delete(snapshot);
  }

  async #restore(vm: string): Promise<void> {
    const modelled = this.#get(vm);
    const { head, snapshots } = modelled;
    if (snapshots.size === 0) return;
    const snapshot = this.#random.pick([...snapshots.keys()]);
    const restored = snapshots.get(snapshot) ?? head;
    const isDone = async () => {
      const found = await readFile(this.#daemon.rawFile(vm));
      return restored.difference(found) === undefined;
    };
    const params = { vm, snapshot, discard: true };
    if (await this.#do('snapshot.restore', params, isDone)) modelled.head = restored.copy();
    await this.#compare(vm, undefined, modelled.head, this.#random.below(2) === 0);
  }

  async #clone(vm: string): Promise<void> {
    const { snapshots } = this.#get(vm);
    if (snapshots.size === 0) return;
    if (this.#vms.size >= MOST_VMS) return this.#deleteVm(vm);
    const snapshot = this.#random.pick([...snapshots.keys()]);
    const name = this.#newName();
    const mode = this.#random.pick(['linked', 'full'] as const);
    const isDone = () => this.#isThere(name);
    if (!(await this.#do('clone', { vm, snapshot, name, mode }, isDone))) return;
    const head = (snapshots.get(snapshot) as ReferenceDisk).copy();
    this.#vms.set(name, { head, snapshots: new Map() });
    await this.#compare(name, undefined, head, false);
  }

  async #deleteVm(vm: string): Promise<void> {
    if (this.#vms.size === 1) return;
    const isDone = async () => !(await this.#isThere(vm));
    if (await this.#do('delete', { vm }, isDone)) this.#vms.delete(vm);
  }

  async #rename(vm: string): Promise<void> {
    const name = this.#newName();
    if (!(await this.#do('rename', { vm, name }, () => this.#isThere(name)))) return;
    this.#vms.set(name, this.#get(vm));
    this.#vms.delete(vm);
  }

  async #collect(): Promise<void> {
    await this.#do('gc', {}, async () => true);
  }

  async #compact(vm: string): Promise<void> {
    await this.#do('compact', { vm }, async () => true);
  }

  async #export(vm: string): Promise<void> {
    const { head } = this.#get(vm);
    const path = join(this.#daemon.folder, `${this.#prefix}.img`);
    const params = { vm, path, format: 'raw' as const, force: true };
    // Cut short it is not there, or was not said to be.
    if (await this.#do('export', params, async () => false)) {
      const difference = head.difference(await readFile(path));
      if (difference !== undefined) throw new Error(`export of ${vm}: ${difference}`);
    }
    await rm(path, { force: true });
  }

  async #compareOne(vm: string): Promise<void> {
    const { head, snapshots } = this.#get(vm);
    const all = [[undefined, head] as const, ...snapshots];
    const [snapshot, disk] = this.#random.pick(all);
    await this.#compare(vm, snapshot, disk, this.#random.below(2) === 0);
  }

  async #compare(
    vm: string,
    snapshot: string | undefined,
    disk: ReferenceDisk,
    direct: boolean,
  ): Promise<void> {
    const path = this.#daemon.rawFile(vm, snapshot);
    const difference = disk.difference(await (direct ? this.#readDirect(path) : readFile(path)));
    if (difference === undefined) return;
    const name = snapshot === undefined ? vm : `${vm}@${snapshot}`;
    throw new Error(`step ${this.#steps}, ${name}${direct ? ', direct' : ''}: ${difference}`);
  }

  async #readDirect(path: string): Promise<Buffer> {
    const file = await open(path, constants.O_RDONLY | constants.O_DIRECT);
    try {
      let at = 0;
      while (at < MODELLED_SIZE) {
        const { bytesRead } = await file.read(this.#memory, at, MODELLED_SIZE - at, at);
        if (bytesRead === 0) break;
        at += bytesRead;
      }
      return this.#memory.subarray(0, at);
    } finally {
      await file.close();
    }
  }

  /** Every VM and snapshot is there, and no other. */
  async #compareNames(): Promise<void> {
    const list = await ask(this.#daemon, 'list', {});
    const mine = list.map(({ name }) => name).filter((name) => name.startsWith(this.#prefix));
    const wanted = [...this.#vms.keys()];
    if (mine.sort().join() !== wanted.sort().join()) {
      throw new Error(`the VMs are ${mine}, not ${wanted}`);
    }
    for (const [vm, { snapshots }] of this.#vms) {
      const found = (await this.#snapshotsOf(vm)).sort().join();
      const names = [...snapshots.keys()].sort().join();
      if (found !== names) throw new Error(`snapshots of ${vm} are ${found}, not ${names}`);
    }
  }
}
