/**
 * The VMs of a store as files: the only place that knows how manifests are read and replaced.
 *
 * INVARIANT: memory follows the disk: the catalog changes in the same tick as the rename that
 * changes the file.
 * INVARIANT: a manifest that can't be read is never written, moved or removed.
 */
import { basename, resolve } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { DiskError, errnoName } from '../../common/errors.js';
import { together } from '../../common/together.js';
import {
  type DurableFiles,
  hostFiles,
  type PendingFile,
  prepareFile,
  sharingSyncs,
  unsettledError,
  writeError,
} from '../../storage/atomic-write.js';
import { FileLock, type HeldLock } from '../../storage/file-lock.js';
import { fileTime, listFolder, readText } from '../../storage/small-files.js';
import { formatManifest, type Manifest, parseManifest } from './manifest.js';
import { ManifestCache } from './manifest-cache.js';
import { ManifestCopies } from './manifest-copies.js';
import { isName } from './names.js';
import {
  establish,
  goneError,
  layoutOf,
  makeRoot,
  manifestPath,
  readIdentity,
  removeTemporaries,
  type StoreIdentity,
  type StoreLayout,
  writeIdentity,
} from './store-layout.js';
import { Trash } from './trash.js';
import { VmCatalog, type VmEntry } from './vm-catalog.js';
import { VmNumbers } from './vm-numbers.js';

/** Manifests read between two turns of the event loop. */
const BATCH = 64;

export interface OwnFile {
  readonly path: string;
  /** @throws DiskError when it is damaged. */
  readonly read: () => void;
  /** Undefined where nothing is known but what the file says. */
  readonly rewrite: (() => Promise<void>) | undefined;
}

export interface OpenOptions {
  /** The store's lock, where this process was handed it. */
  readonly held?: HeldLock;
  /** Whether a copy is taken that was made of a store in use. */
  readonly acceptCopy?: boolean;
}

export class VmStore {
  readonly layout: StoreLayout;
  readonly identity: StoreIdentity;
  readonly files: DurableFiles;
  readonly trash: Trash;
  readonly catalog = new VmCatalog();
  readonly #lock: FileLock;
  #numbers: VmNumbers | undefined;
  readonly #cache = new ManifestCache();
  readonly copies: ManifestCopies;

  private constructor(
    layout: StoreLayout,
    identity: StoreIdentity,
    files: DurableFiles,
    lock: FileLock,
  ) {
    this.layout = layout;
    this.identity = identity;
    this.files = sharingSyncs(files);
    this.trash = new Trash(layout.trash, this.files);
    this.copies = new ManifestCopies(layout, this.files);
    this.#lock = lock;
  }

  /**
   * Opens the store in `folder`, or makes one there. VMs whose manifest can't be read are in
   * `catalog.damaged()`.
   * @throws DiskError `busy` when another daemon has it, `damaged`, `not-supported`.
   */
  static async open(
    folder: string,
    files: DurableFiles = hostFiles,
    options: OpenOptions = {},
  ): Promise<VmStore> {
    const layout = layoutOf(resolve(folder));
    await makeRoot(layout);
    // Before anything is written: a newer version may lock in another way.
    readIdentity(layout);
    const { held } = options;
    const lock =
      held === undefined
        ? FileLock.acquire(layout.lock, `the store ${layout.root}`)
        : FileLock.inherit(held);
    try {
      if (lock.copiedWhileHeld && options.acceptCopy !== true) throw copiedInUse(layout);
      const identity = await establish(layout, files);
      lock.claim();
      removeTemporaries(layout);
      // An earlier daemon may have died between a rename and making it durable: what is built on it
      // from now on must not lose it.
      const folders = [layout.root, layout.vms, layout.bases];
      await together(folders.map((folder) => files.syncFolder(folder, 'store.sync-folder')));
      const store = new VmStore(layout, identity, files, lock);
      store.#loadAll();
      for (const { name } of store.catalog.list()) {
        if (store.copies.compare(name) === 'same') continue;
        // Never in force: a full disk, or a folder in its place, keeps nobody from the VMs. `check`
        // says that it is behind.
        await store.copies.refresh(name).catch(() => undefined);
      }
      return store;
    } catch (error) {
      lock.release();
      throw error;
    }
  }

  /** A number that no VM of this store ever had. */
  takeNumber(): Promise<number> {
    this.#numbers ??= VmNumbers.load(this.layout.numbers, this.files, this.catalog.highestNumber);
    return this.#numbers.take();
  }

  /** The files of the store as a whole, and how each is read and, where it is known, rewritten. */
  ownFiles(): readonly OwnFile[] {
    const { layout, files, identity } = this;
    const numbers = this.#numbers;
    return [
      {
        path: layout.identity,
        read: () => {
          if (readIdentity(layout) === undefined) throw goneError(layout.identity);
        },
        rewrite: () => writeIdentity(layout, files, identity),
      },
      {
        path: layout.numbers,
        read: () => VmNumbers.check(layout.numbers, numbers !== undefined),
        rewrite: numbers === undefined ? undefined : () => numbers.rewrite(),
      },
    ];
  }

  /** Whoever holds copies of these keeps the store from other daemons. */
  get lockDescriptors(): HeldLock {
    return this.#lock.descriptors;
  }

  /** Gives the store free for another daemon. */
  close(): void {
    this.#lock.release();
  }

  /** @throws DiskError `not-found` or `damaged`. */
  load(name: string): Manifest {
    return this.loadEntry(this.catalog.get(name));
  }

  /** The manifest as it is now. Synchronous, so that no change comes in between. */
  loadEntry(entry: VmEntry): Manifest {
    const manifest = this.readEntry(entry);
    this.#cache.set(entry.id, manifest);
    return manifest;
  }

  /** The same for who goes through many VMs: does not keep it in memory. */
  readEntry(entry: VmEntry): Manifest {
    const cached = this.#cache.get(entry.id);
    if (cached !== undefined) return cached;
    const { name } = entry;
    const manifest = this.#read(name);
    if (manifest.id !== entry.id || manifest.number !== entry.number) {
      throw new DiskError('damaged', `VM "${name}": vms/${name}.json now belongs to another VM`, {
        hint: 'restart the daemon after changing files of the store by hand',
      });
    }
    return manifest;
  }

  /** When a VM's manifest was last written; undefined when it is gone. */
  changedAt(name: string): number | undefined {
    return fileTime(manifestPath(this.layout, name));
  }

  /**
   * Manifests of many VMs, read a few at a time so that others get their turn; those deleted
   * meanwhile are left out. They are not kept in memory.
   */
  async *eachManifest(entries: readonly VmEntry[]): AsyncGenerator<Manifest> {
    for (const [index, entry] of entries.entries()) {
      if (index % BATCH === BATCH - 1) await nextTurn();
      if (this.catalog.findById(entry.id) === entry) yield this.readEntry(entry);
    }
  }

  /** For a name that the caller has reserved. The commit changes the catalog, too. */
  async prepareNew(name: string, manifest: Manifest): Promise<PendingFile> {
    const pending = await this.#prepare(name, manifest, true);
    return {
      ...pending,
      commit: () => {
        pending.commit();
        this.catalog.add(name, manifest);
        this.#cache.set(manifest.id, manifest);
      },
    };
  }

  /** Under the entry's mutex. */
  async prepareChange(entry: VmEntry, manifest: Manifest): Promise<PendingFile> {
    const pending = await this.#prepare(entry.name, manifest, false);
    return {
      ...pending,
      commit: () => {
        pending.commit();
        this.catalog.update(entry.id, manifest);
        this.#cache.set(entry.id, manifest);
      },
    };
  }

  /** `prepareChange`, `commit` and `settle` in one. */
  async change(entry: VmEntry, manifest: Manifest): Promise<void> {
    await commitChange(await this.prepareChange(entry, manifest));
  }

  /** Under the entry's mutex, to a name that the caller has reserved. */
  async rename(entry: VmEntry, name: string): Promise<void> {
    const target = manifestPath(this.layout, name);
    try {
      await this.copies.remove(entry.name);
      this.files.rename(manifestPath(this.layout, entry.name), target, 'manifest.rename-vm');
    } catch (error) {
      throw writeError(target, error);
    }
    this.catalog.rename(entry.id, name);
    await this.#settle([this.layout.vms], target);
    // The change stands; a copy that can't be made now is made with the next one.
    await this.copies.refresh(name).catch(() => undefined);
  }

  /**
   * Under the entry's mutex. The manifest goes to the trash; its deltas are garbage from then on.
   */
  async remove(entry: VmEntry): Promise<void> {
    const path = manifestPath(this.layout, entry.name);
    try {
      await this.copies.remove(entry.name);
      this.trash.put(path, 'manifest.trash');
    } catch (error) {
      throw writeError(path, error);
    }
    this.catalog.remove(entry.id);
    this.#cache.delete(entry.id);
    await this.#settle([this.layout.vms, this.layout.trash], path);
  }

  /** What the manifest's file says now, whatever is in memory. @throws DiskError `damaged`. */
  readFile(name: string): Manifest {
    return this.#read(name);
  }

  /**
   * Puts the copy of a damaged manifest in its place.
   * @throws DiskError `damaged` when there is no good copy, or it is of another VM.
   */
  async restoreManifest(name: string): Promise<void> {
    const copy = this.copies.read(name);
    const entry = this.catalog.find(name);
    if (copy === undefined || (entry !== undefined && entry.id !== copy.manifest.id)) {
      throw new DiskError('damaged', `there is no copy of vms/${name}.json that can be used`, {
        hint: 'restore that file from a backup of the store',
      });
    }
    const known = entry === undefined ? undefined : this.#cache.get(entry.id);
    const text = known === undefined ? copy.text : formatManifest(known);
    const path = manifestPath(this.layout, name);
    const pending = await prepareFile(this.files, path, text, 'manifest');
    await commitChange({
      ...pending,
      commit: () => {
        if (entry !== undefined) return pending.commit();
        const problem = this.catalog.restore(name, copy.manifest);
        try {
          pending.commit();
        } catch (error) {
          this.catalog.remove(copy.manifest.id);
          this.catalog.addDamaged(name, problem);
          throw error;
        }
      },
    });
  }

  #prepare(name: string, manifest: Manifest, isNew: boolean): Promise<PendingFile> {
    return this.copies.prepare(name, formatManifest(manifest), isNew);
  }

  async #settle(folders: readonly string[], path: string): Promise<void> {
    try {
      for (const folder of folders) await this.files.syncFolder(folder, 'manifest.sync-folder');
    } catch (error) {
      throw unsettledError(path, error);
    }
  }

  #loadAll(): void {
    const names = (listFolder(this.layout.vms) ?? [])
      .filter((file) => file.endsWith('.json') && !file.startsWith('.'))
      .map((file) => basename(file, '.json'))
      .sort();
    // One after the other and synchronous: a third of the processor time of asynchronous reads, and
    // nothing else runs yet. In the order of names, so that of two with one identity always the
    // same one is refused.
    for (const name of names) this.#admit(name);
    this.#admitOrphans();
  }

  /** A copy without its manifest: that file was lost, and with it what the VM's deltas are for. */
  #admitOrphans(): void {
    for (const file of listFolder(this.layout.vms) ?? []) {
      if (!file.endsWith('.json.copy')) continue;
      const name = basename(file, '.json.copy');
      if (this.catalog.knows(name) || !isName(name)) continue;
      this.catalog.addDamaged(name, unreadable(name, new Error('it is gone')));
    }
  }

  /** @throws DiskError `damaged`. */
  #read(name: string): Manifest {
    if (!isName(name)) {
      throw new DiskError('damaged', `vms/${name}.json: "${name}" is no valid VM name`, {
        hint: 'rename that file, or move it out of the store, and restart the daemon',
      });
    }
    let text: string | undefined;
    try {
      text = readText(manifestPath(this.layout, name));
    } catch (error) {
      throw unreadable(name, error);
    }
    if (text === undefined) throw unreadable(name, new Error('it is gone'));
    return parseManifest(name, text);
  }

  #admit(name: string): void {
    try {
      this.catalog.add(name, this.#read(name));
    } catch (error) {
      if (!(error instanceof DiskError)) throw error;
      this.catalog.addDamaged(name, error);
    }
  }
}

/** Commits and settles; what was prepared is removed again when the commit fails. */
async function commitChange(pending: PendingFile): Promise<void> {
  try {
    pending.commit();
  } catch (error) {
    // The first error is the one to report; a leftover is removed at the next start.
    await pending.abandon().catch(() => undefined);
    throw error;
  }
  await pending.settle();
}

function copiedInUse({ root }: StoreLayout): DiskError {
  return new DiskError('damaged', `the store ${root} was copied while a daemon had it in use`, {
    hint:
      'stop that daemon and copy again; if none ran while it was copied, or it is a snapshot of ' +
      'the host: daemon start --accept-copy, then check --deep',
  });
}

function unreadable(name: string, error: unknown): DiskError {
  const isSaid = error instanceof DiskError || errnoName(error) === undefined;
  const why = isSaid && error instanceof Error ? error.message : errnoName(error);
  return new DiskError('damaged', `VM "${name}": cannot read vms/${name}.json (${why})`, {
    hint: 'take its copy: layerdisk check --repair; or look at that file and the host disk',
    errno: 'EIO',
    cause: error,
  });
}
