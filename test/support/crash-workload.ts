/**
 * Random work on a store while a tape runs, and what may be seen of it after a power cut at any
 * point of the tape.
 */
import { join } from 'node:path';
import { BLOCK_SIZE } from '../../src/common/units.js';
import { SECTOR, SectorHistory, type Span, sectorBytes } from './crash-model.js';
import { aroundHostCalls } from './host-faults.js';
import { HostTape } from './host-tape.js';
import type { Random } from './random.js';
import { scratchParent } from './vm-operations.js';
import { DISK_SIZE, edgesOf, VmWorld } from './vm-world.js';

const SECTORS = DISK_SIZE / SECTOR;
/** Of a disk that was made larger. */
const MOST_BLOCKS = 12;

/** What users can see, from some point of the tape on: names, and what the disks hold. */
interface Shape extends Span {
  readonly text: string;
  readonly disks: ReadonlyMap<string, SectorHistory>;
}

/** Thrown by every call to the host once the daemon is dead. */
class Killed extends Error {}

export class CrashWorkload {
  readonly world: VmWorld;
  readonly tape: HostTape;
  /** What was done, for the log of a failing run. */
  readonly log: string[] = [];
  readonly #random: Random;
  readonly #shapes: Shape[] = [];
  #disks = new Map<string, SectorHistory>();
  /** Used since the daemon was last started: it flushes those, and no others, when it ends. */
  readonly #used = new Set<SectorHistory>();
  #value = 0;
  #names = 0;

  private constructor(world: VmWorld, random: Random) {
    this.world = world;
    this.#random = random;
    this.tape = new HostTape(join(world.folder, 'store'));
  }

  static async start(random: Random): Promise<CrashWorkload> {
    const world = await VmWorld.create('real', scratchParent());
    await world.create('web', ['disk0', 'data']);
    await world.stop();
    const work = new CrashWorkload(await VmWorld.adopt(world.folder, new Map()), random);
    for (const disk of ['disk0', 'data']) work.#disks.set(`web/${disk}`, emptyDisk());
    work.#show({ start: 0, end: 0 });
    return work;
  }

  async end(): Promise<void> {
    this.tape.end();
    await this.world.destroy();
  }

  /** What may be seen after a power cut when so much was on the tape. */
  allowedAt(position: number): Shape[] {
    const done = this.#shapes.findLastIndex(({ end }) => end <= position);
    return this.#shapes.filter((each, at) => at === done || (at > done && each.start < position));
  }

  #show(span: Span): void {
    this.#shapes.push({ ...span, text: shapeOf(this.world), disks: new Map(this.#disks) });
  }

  async #timed(act: () => Promise<unknown>): Promise<Span> {
    const start = this.tape.position;
    await act();
    return { start, end: this.tape.position };
  }

  /** A control operation: `change` brings the model after it. */
  async #control(act: () => Promise<unknown>, change: (span: Span) => void): Promise<void> {
    const span = await this.#timed(act);
    change(span);
    this.#show(span);
  }

  async step(): Promise<void> {
    const { world, tape } = this;
    const at = tape.position;
    const what = await this.#step(world.service.list().map(({ name }) => name));
    this.log.push(`${at}: ${what}`);
  }

  async #step(vms: readonly string[]): Promise<string> {
    const random = this.#random;
    const vm = random.pick(vms);
    const snapshots = this.world.manifest(vm).snapshots.map(({ name }) => name);
    const snapshot = snapshots.length === 0 ? undefined : random.pick(snapshots);
    const dice = random.below(100);
    if (dice < 34) return await this.#write(vm);
    if (dice < 42) return await this.#discard(vm);
    if (dice < 54) return await this.#flush(vm);
    if (dice < 58) return await this.#flushWhile(vm);
    if (dice < 71) return await this.#take(vm);
    if (dice < 74) return await this.#resize(vm);
    if (dice < 76) return await this.#collect();
    if (dice < 77) return await this.#compact(vm);
    if (dice < 82) return await this.#killed(vm);
    if (dice < 84) return await this.#restart();
    if (snapshot === undefined || random.below(5) === 0) {
      if (vms.length < 4) return await this.#create();
      if (snapshot === undefined) return await this.#delete(vm);
    }
    if (dice < 88) return await this.#restore(vm, snapshot);
    if (dice < 92) return await this.#deleteSnapshot(vm, snapshot);
    if (dice < 96) return vms.length < 5 ? await this.#clone(vm, snapshot) : 'nothing';
    return vms.length > 2 ? await this.#delete(vm) : await this.#rename(vm);
  }

  #pickDisk(vm: string): { key: string; head: string; history: SectorHistory } {
    const { name, head } = this.#random.pick(this.world.manifest(vm).disks);
    const history = this.#disks.get(`${vm}/${name}`)!;
    this.#used.add(history);
    return { key: `${vm}/${name}`, head, history };
  }

  async #write(vm: string): Promise<string> {
    const { key, head, history } = this.#pickDisk(vm);
    const first = this.#random.below(history.sectors);
    const count = 1 + this.#random.below(Math.min(20, history.sectors - first));
    const values = Array.from({ length: count }, () => ++this.#value);
    const bytes = sectorBytes(values);
    const span = await this.#timed(() => this.world.engine.write(head, first * SECTOR, bytes));
    history.write(first, values, span);
    return `write ${key} ${first}+${count}`;
  }

  async #discard(vm: string): Promise<string> {
    const { key, head, history } = this.#pickDisk(vm);
    const first = this.#random.below(history.sectors);
    const count = 1 + this.#random.below(history.sectors - first);
    const [offset, length] = [first * SECTOR, count * SECTOR];
    const span = await this.#timed(() => this.world.real.discard(head, offset, length));
    history.write(first, new Array<number>(count).fill(0), span);
    return `discard ${key} ${first}+${count}`;
  }

  async #flush(vm: string): Promise<string> {
    const { key, head, history } = this.#pickDisk(vm);
    history.flushed(await this.#timed(() => this.world.engine.volumes.flush(head)));
    return `flush ${key}`;
  }

  /** A flush under way while others write and collect. */
  async #flushWhile(vm: string): Promise<string> {
    const { key, head, history } = this.#pickDisk(vm);
    const flush = this.#timed(() => this.world.engine.volumes.flush(head));
    const others = [this.#write(vm), this.world.service.collectGarbage(false)];
    await Promise.all(others);
    history.flushed(await flush);
    return `flush ${key}, write and gc`;
  }

  async #resize(vm: string): Promise<string> {
    const disk = this.#random.pick(this.world.manifest(vm).disks);
    const size = BLOCK_SIZE * (1 + this.#random.below(MOST_BLOCKS));
    if (size === disk.size) return 'nothing';
    const key = `${vm}/${disk.name}`;
    const history = this.#disks.get(key)!;
    const request = { disk: disk.name, size, shrink: true };
    const resize = () => this.world.service.resizeDisk(vm, request);
    await this.#control(resize, (span) => {
      this.#disks.set(key, history.resized(size / SECTOR, span));
      this.#used.delete(history);
    });
    return `resize ${key} ${size}`;
  }

  async #take(vm: string): Promise<string> {
    const name = `s${++this.#names}`;
    const take = () => this.world.service.takeSnapshot(vm, { name });
    await this.#control(take, (span) => this.#taken(vm, name, span));
    return `take ${vm}@${name}`;
  }

  #taken(vm: string, name: string, span: Span): void {
    for (const disk of this.world.manifest(vm).disks) {
      const history = this.#disks.get(`${vm}/${disk.name}`)!;
      history.flushed(span);
      this.#disks.set(`${vm}@${name}/${disk.name}`, history.fork());
    }
  }

  async #restore(vm: string, snapshot: string): Promise<string> {
    const restore = () => this.world.service.restoreSnapshot(vm, { snapshot, discard: true });
    await this.#control(restore, () => {
      this.#forget(`${vm}/`);
      this.#copy(`${vm}@${snapshot}/`, `${vm}/`);
    });
    return `restore ${vm}@${snapshot}`;
  }

  async #deleteSnapshot(vm: string, snapshot: string): Promise<string> {
    const remove = () => this.world.service.deleteSnapshot(vm, snapshot);
    await this.#control(remove, () => this.#forget(`${vm}@${snapshot}/`));
    return `delete ${vm}@${snapshot}`;
  }

  async #clone(vm: string, snapshot: string): Promise<string> {
    const mode = this.#random.pick(['linked', 'full'] as const);
    const name = `vm${++this.#names}`;
    const clone = () => this.world.service.clone({ vm, snapshot, name, mode, hardware: {} });
    await this.#control(clone, () => this.#copy(`${vm}@${snapshot}/`, `${name}/`));
    return `${mode} clone ${vm}@${snapshot} ${name}`;
  }

  async #create(): Promise<string> {
    const name = `vm${++this.#names}`;
    if (this.#random.below(2) === 0) {
      const create = () => this.world.service.create(name, [{ name: 'disk0', size: DISK_SIZE }]);
      await this.#control(create, () => this.#disks.set(`${name}/disk0`, emptyDisk()));
      return `create ${name}`;
    }
    const values = Array.from({ length: SECTORS }, () => ++this.#value);
    const path = await this.world.rawFile(`${name}.img`, sectorBytes(values));
    const copy = this.#random.below(2) === 0;
    const images = [{ path, options: { format: 'raw' } }] as const;
    const load = () => this.world.service.importImages(name, images, { copy });
    await this.#control(load, () => this.#disks.set(`${name}/disk0`, SectorHistory.of(values)));
    return `import ${name}${copy ? ' --copy' : ''}`;
  }

  async #delete(vm: string): Promise<string> {
    const remove = () => this.world.service.delete(vm);
    await this.#control(remove, () => {
      this.#forget(`${vm}/`);
      this.#forget(`${vm}@`);
    });
    return `delete ${vm}`;
  }

  async #rename(vm: string): Promise<string> {
    const name = `vm${++this.#names}`;
    const rename = () => this.world.service.rename(vm, name);
    await this.#control(rename, () => {
      for (const mark of ['/', '@']) {
        for (const [key, history] of [...this.#disks]) {
          if (key.startsWith(vm + mark)) this.#disks.set(name + key.slice(vm.length), history);
        }
        this.#forget(vm + mark);
      }
    });
    return `rename ${vm} ${name}`;
  }

  async #collect(): Promise<string> {
    await this.world.service.collectGarbage(false);
    return 'gc';
  }

  async #compact(vm: string): Promise<string> {
    await this.world.service.compact(vm);
    return `compact ${vm}`;
  }

  async #restart(): Promise<string> {
    const span = await this.#timed(() => this.world.restart());
    for (const history of this.#used) history.flushed(span);
    this.#used.clear();
    return 'restart';
  }

  /**
   * The daemon is killed at some call to the host that a flush, a snapshot or a collection makes,
   * and the next one takes the store over; the host goes on.
   */
  async #killed(vm: string): Promise<string> {
    const { key, head } = this.#pickDisk(vm);
    const name = `s${++this.#names}`;
    const kind = this.#random.pick(['flush', 'take', 'gc'] as const);
    const start = this.tape.position;
    const last = this.#random.below(24);
    let calls = 0;
    const revive = aroundHostCalls((call, run) => {
      if (call.name !== 'read') calls += 1;
      if (calls > last) throw new Killed(`killed at ${call.label}`);
      return run();
    });
    const act = {
      flush: () => this.world.engine.volumes.flush(head),
      take: () => this.world.service.takeSnapshot(vm, { name }),
      gc: () => this.world.service.collectGarbage(false),
    };
    let reached: unknown = 'done';
    await act[kind]().catch((error: unknown) => {
      reached = error;
    });
    revive();
    await this.world.kill();
    this.#used.clear();
    const span = { start, end: this.tape.position };
    const { snapshots } = this.world.manifest(vm);
    // A snapshot is acknowledged by nobody, but seen: what is written from now on stands on it.
    if (snapshots.some((each) => each.name === name)) this.#adopted(vm, name);
    this.#show(span);
    return `killed (${kind} ${kind === 'flush' ? key : vm}, ${reached})`;
  }

  /** A snapshot that was seen and not acknowledged: what it holds need not be durable yet. */
  #adopted(vm: string, name: string): void {
    for (const disk of this.world.manifest(vm).disks) {
      const history = this.#disks.get(`${vm}/${disk.name}`)!;
      this.#disks.set(`${vm}@${name}/${disk.name}`, history.fork());
    }
  }

  #copy(from: string, to: string): void {
    for (const [key, history] of [...this.#disks]) {
      if (!key.startsWith(from)) continue;
      this.#disks.set(to + key.slice(from.length), SectorHistory.of(history.values()));
    }
  }

  #forget(prefix: string): void {
    for (const key of [...this.#disks.keys()]) if (key.startsWith(prefix)) this.#disks.delete(key);
  }
}

function emptyDisk(): SectorHistory {
  return SectorHistory.of(new Array<number>(SECTORS).fill(0));
}

/** Names of VMs and snapshots and how they hang together, as one comparable text. */
export function shapeOf(world: VmWorld): string {
  const shapes = world.service.list().map(({ name }) => {
    const manifest = world.manifest(name);
    const disks = manifest.disks.map((disk) => `${disk.name} ${disk.size}`);
    return `${name} (${disks.join(', ')}): ${edgesOf(manifest).join(', ')}`;
  });
  return shapes.join('; ');
}
