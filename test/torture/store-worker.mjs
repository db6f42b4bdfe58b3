/**
 * A store in one process, without FUSE and without a daemon: opens it, compares all of it with what
 * the journal says it must hold, and works on it until it is killed.
 *
 * node store-worker.mjs STORE JOURNAL DEATH SEED [OPERATION]
 *
 * DEATH is what ended the worker before: `process` or `power`. With OPERATION it does that one and
 * ends; `verify` does none; without, random ones go on for ever. Prints `working` once the store
 * was found right. Exit status 3 when it was not, with what is wrong on standard error.
 */
import { closeSync, fsyncSync, openSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { copyVolume } from '../../dist/modules/engine/jobs/copy-volume.js';
import { tidyDeltas } from '../../dist/modules/engine/jobs/tidy-deltas.js';
import { LocalEngine } from '../../dist/modules/engine/local-engine.js';
import { volumesOf } from '../../dist/modules/engine/volume/thread.js';
import { describeBase, openBase } from '../../dist/modules/formats/base.js';
import { filesOf, findChange } from '../../dist/modules/formats/fingerprint.js';
import { BaseRecords } from '../../dist/modules/vm/store/base-records.js';
import { VmStore } from '../../dist/modules/vm/store/vm-store.js';
import { VmService } from '../../dist/modules/vm/vm-service.js';
import { fillSectors, generationsOf, SECTOR } from './sector-stamps.mjs';
import { Journal, StoreModel } from './store-model.mjs';

const DISK_SECTORS = 1024;
const MOST_SECTORS = 64;
const MOST_VMS = 4;
const MOST_SNAPSHOTS = 4;
const WRONG = 3;

const [folder, journalPath, death, seedText, only] = process.argv.slice(2);

async function openStore() {
  // Each try works on a copy, of a store whose process was killed.
  const store = await VmStore.open(folder, undefined, { acceptCopy: true });
  const bases = new BaseRecords(store, { describeBase, findChange, filesOf });
  const problems = [];
  const engine = new LocalEngine({
    store: folder,
    resolveBase: (id) => bases.resolve(id),
    threadCount: 1,
    openBase,
    baseAllocatedSize: () => 0,
    publishBase: () => undefined,
    runCopy: async ({ source, target, onProgress, signal }) =>
      copyVolume(engine.context, { source, target }, { onProgress, signal }),
    runReclaim: tidyDeltas,
    rowLength: 3,
    onError: (what, error) => problems.push(`${what}: ${error}`),
  });
  const service = new VmService({
    store,
    bases,
    engine,
    hooks: {
      flushExposed: async () => ({ consistency: 'consistent', release: async () => undefined }),
      contentChanged: async () => undefined,
      holders: async () => [],
      // Nothing is mounted, so nobody opens anything.
      holdOpens: () => ({ stillOpen: async () => 0, release: () => undefined }),
      namesChanged: () => undefined,
    },
    ownFolders: [folder],
    runExport: async () => {
      throw new Error('nothing is exported here');
    },
    onProblem: (problem) => problems.push(String(problem)),
  });
  return { store, engine, service, problems, volumeOf: volumesOf(engine.context) };
}

class Worker {
  constructor(parts, model, journal) {
    Object.assign(this, parts);
    this.model = model;
    this.journal = journal;
  }

  async withVolume(delta, writable, use) {
    const { volumes } = this.engine;
    const open = await volumes.acquire(delta, { writable });
    try {
      return await use(this.volumeOf(open.handle));
    } finally {
      volumes.release(open);
    }
  }

  readSectors(delta, writable) {
    return this.withVolume(delta, writable, (volume) => {
      const bytes = Buffer.alloc(volume.size);
      volume.read(bytes, 0, 0, bytes.length);
      return generationsOf(bytes);
    });
  }

  async contents() {
    const found = new Map();
    for (const { name } of this.service.list()) {
      const { disks, snapshots } = this.service.read(name);
      const sealed = new Map();
      for (const snapshot of snapshots) {
        sealed.set(snapshot.name, await this.readSectors(snapshot.disks[0].delta, false));
      }
      found.set(name, { head: await this.readSectors(disks[0].head, true), snapshots: sealed });
    }
    return found;
  }

  /** @returns what is wrong with the store */
  async verify() {
    const damaged = this.service.damaged().map(({ name }) => `VM ${name} cannot be read`);
    const found = await this.contents();
    const problems = [...damaged, ...this.model.judge(found)];
    await this.service.collectGarbage(false);
    const check = await this.service.check({ deep: true, repair: false });
    problems.push(...check.findings.map(({ file, message }) => `check: ${file}: ${message}`));
    problems.push(...this.strayFiles().map((file) => `${file} was left behind`));
    return { problems: [...problems, ...this.problems], found };
  }

  /** What only exists while something is being made. */
  strayFiles() {
    const { root, vms, bases, deltas } = this.store.layout;
    return [root, vms, bases, deltas].flatMap((place) =>
      readdirSync(place)
        .filter((name) => /\.tmp-|\.new$/.test(name))
        .map((name) => join(place, name)),
    );
  }

  head(vm) {
    return this.service.read(vm).disks[0].head;
  }

  snapshotsOf(vm) {
    return this.service.read(vm).snapshots.map(({ name }) => name);
  }

  range(below) {
    const first = below(DISK_SECTORS);
    return { first, count: Math.min(1 + below(MOST_SECTORS), DISK_SECTORS - first) };
  }

  async write(vm, below) {
    const { first, count } = this.range(below);
    const generation = this.model.generation;
    const bytes = fillSectors(generation, first, count);
    await this.journal.run({ op: 'write', vm, generation, first, count }, () =>
      this.withVolume(this.head(vm), true, (volume) =>
        volume.write(bytes, 0, first * SECTOR, bytes.length),
      ),
    );
  }

  async discard(vm, below) {
    const { first, count } = this.range(below);
    await this.journal.run({ op: 'discard', vm, first, count }, () =>
      this.withVolume(this.head(vm), true, (volume) =>
        volume.discard(first * SECTOR, count * SECTOR),
      ),
    );
  }

  flush(vm) {
    return this.journal.run({ op: 'flush', vm }, () => this.engine.volumes.flush(this.head(vm)));
  }

  create(vm) {
    return this.journal.run({ op: 'create', vm, sectors: DISK_SECTORS }, () =>
      this.service.create(vm, [{ size: DISK_SECTORS * SECTOR }]),
    );
  }

  /** @param path a raw image, all sectors of which have generation 1 */
  import(vm, path, copy) {
    const images = [{ path, options: { format: 'raw' } }];
    return this.journal.run({ op: 'import', vm, sectors: DISK_SECTORS, generation: 1 }, () =>
      this.service.importImages(vm, images, { copy }),
    );
  }

  snapshot(vm, snapshot) {
    return this.journal.run({ op: 'snapshot', vm, snapshot }, () =>
      this.service.takeSnapshot(vm, { name: snapshot }),
    );
  }

  deleteSnapshot(vm, snapshot) {
    return this.journal.run({ op: 'delete-snapshot', vm, snapshot }, () =>
      this.service.deleteSnapshot(vm, snapshot),
    );
  }

  restore(vm, snapshot) {
    return this.journal.run({ op: 'restore', vm, snapshot }, () =>
      this.service.restoreSnapshot(vm, { snapshot, discard: true }),
    );
  }

  clone(vm, snapshot, to, mode) {
    return this.journal.run({ op: 'clone', vm, snapshot, to }, () =>
      this.service.clone({ vm, snapshot, name: to, mode, hardware: {} }),
    );
  }

  rename(vm, to) {
    return this.journal.run({ op: 'rename', vm, to }, () => this.service.rename(vm, to));
  }

  delete(vm) {
    return this.journal.run({ op: 'delete', vm }, () => this.service.delete(vm));
  }

  collect() {
    return this.journal.run({ op: 'collect' }, () => this.service.collectGarbage(false));
  }

  compact(vm) {
    return this.journal.run({ op: 'compact', vm }, () => this.service.compact(vm));
  }

  /** As the kernel does by itself at any time: one file reaches the disk, the others do not. */
  writeBack(below) {
    const deltas = join(folder, 'deltas');
    const names = readdirSync(deltas);
    const name = names[below(names.length)];
    if (name === undefined) return;
    const fd = openSync(join(deltas, name), 'r');
    fsyncSync(fd);
    closeSync(fd);
  }
}

async function step(worker, below) {
  const vms = worker.service.list().map(({ name }) => name);
  const fresh = `vm${worker.model.generation}-${below(1 << 30)}`;
  if (vms.length === 0) return worker.create(fresh);
  const vm = vms[below(vms.length)];
  const snapshots = worker.snapshotsOf(vm);
  const snapshot = snapshots[below(snapshots.length || 1)];
  const dice = below(1000);
  if (dice < 550) return worker.write(vm, below);
  if (dice < 630) return worker.discard(vm, below);
  if (dice < 750) return worker.flush(vm);
  if (dice < 820) return worker.writeBack(below);
  if (dice < 870) {
    if (snapshots.length < MOST_SNAPSHOTS) return worker.snapshot(vm, `s${below(1 << 30)}`);
    return worker.deleteSnapshot(vm, snapshot);
  }
  if (dice < 890) return vms.length < MOST_VMS ? worker.create(fresh) : worker.delete(vm);
  if (dice < 910) return worker.collect();
  if (dice < 920) return worker.compact(vm);
  if (dice < 930) return worker.rename(vm, fresh);
  if (snapshot === undefined) return worker.snapshot(vm, `s${below(1 << 30)}`);
  if (dice < 950) return worker.restore(vm, snapshot);
  if (dice < 965) return worker.deleteSnapshot(vm, snapshot);
  if (vms.length >= MOST_VMS) return worker.write(vm, below);
  return worker.clone(vm, snapshot, fresh, dice < 990 ? 'linked' : 'full');
}

/** One operation on the VM `one`, which is there with the snapshots `a` and `b`. */
const OPERATIONS = {
  prepare: async (worker, below) => {
    await worker.create('one');
    for (const name of ['a', 'b', 'c']) {
      for (let count = 0; count < 8; count += 1) await worker.write('one', below);
      await worker.snapshot('one', name);
    }
    await worker.write('one', below);
    await worker.create('two');
  },
  verify: async () => undefined,
  create: (worker) => worker.create('new'),
  write: (worker, below) => worker.write('one', below),
  discard: (worker, below) => worker.discard('one', below),
  flush: (worker) => worker.flush('one'),
  snapshot: (worker) => worker.snapshot('one', 'new'),
  restore: (worker) => worker.restore('one', 'a'),
  'delete-snapshot': (worker) => worker.deleteSnapshot('one', 'b'),
  'linked-clone': (worker) => worker.clone('one', 'b', 'new', 'linked'),
  'full-clone': (worker) => worker.clone('one', 'b', 'new', 'full'),
  rename: (worker) => worker.rename('one', 'new'),
  delete: (worker) => worker.delete('one'),
  'import-linked': (worker) => worker.import('new', `${journalPath}.img`, false),
  'import-copied': (worker) => worker.import('new', `${journalPath}.img`, true),
  /** Deltas that nobody names any more: given back in part, merged in rows, removed. */
  reclaim: async (worker) => {
    for (const name of ['a', 'b', 'c']) await worker.deleteSnapshot('one', name);
    await worker.collect();
  },
  compact: async (worker) => {
    await worker.deleteSnapshot('one', 'b');
    await worker.compact('one');
  },
  sum: (worker) => worker.engine.health.sum({}),
};

const model = StoreModel.load(journalPath, death);
const parts = await openStore();
let state = Number(seedText) >>> 0 || 1;
const below = (limit) => {
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  state >>>= 0;
  return state % limit;
};
const reader = new Worker(parts, model, undefined);
if (only === undefined || only === 'verify') {
  const { problems, found } = await reader.verify();
  if (problems.length > 0) {
    process.stderr.write(`${problems.join('\n')}\n`);
    process.exit(WRONG);
  }
  model.rebase(journalPath, found);
}
const journal = new Journal(openSync(journalPath, 'a'), model);
const worker = new Worker(parts, model, journal);
process.stdout.write('working\n');
if (only !== undefined) await OPERATIONS[only](worker, below);
else for (;;) await step(worker, below);
