/**
 * What the mount shows: the store's VMs, their disks and snapshots, as the transport asks for them.
 */
import { statSync } from 'node:fs';
import { DiskError } from '../common/errors.js';
import type { LocalEngine } from '../engine/local-engine.js';
import { freeSpace } from '../storage/free-space.js';
import type {
  DirectoryEntry,
  FileSystemSizes,
  Namespace,
  NodeAttr,
  NodeId,
  OpenedNode,
  OpenIntent,
} from '../transport/namespace.js';
import { ROOT_NODE } from '../transport/namespace.js';
import type { ExposedDisk, ExposedSnapshot, ExposedVm, Exposure } from '../vm/exposure.js';
import type { OpenFiles } from './open-files.js';

const DIRECTORY_MODE = 0o755;
const HEAD_MODE = 0o600;
const READ_ONLY_MODE = 0o400;
const CONFIGURATION = 'vm.json';
const SNAPSHOTS = 'snapshots';

export interface NamespaceOptions {
  readonly exposure: Exposure;
  readonly engine: LocalEngine;
  readonly files: OpenFiles;
  /** The store's folder. */
  readonly store: string;
  readonly uid: number;
  readonly gid: number;
  /** A disk that cannot be opened, and why. */
  readonly onProblem: (what: string, error: unknown) => void;
}

/** A node found: which file or folder of a VM it is. */
type Found =
  | { readonly kind: 'vm' | 'snapshots' | 'configuration'; readonly vm: ExposedVm }
  | { readonly kind: 'snapshot'; readonly vm: ExposedVm; readonly snapshot: ExposedSnapshot }
  | {
      readonly kind: 'disk';
      readonly vm: ExposedVm;
      /** Whose file it is; absent for a head. */
      readonly snapshot?: ExposedSnapshot;
      readonly disk: ExposedDisk;
    };

export class StoreNamespace implements Namespace {
  readonly #options: NamespaceOptions;
  readonly #started = Date.now();

  constructor(options: NamespaceOptions) {
    this.#options = options;
  }

  lookup(parent: NodeId, name: string): NodeAttr | undefined {
    const { exposure } = this.#options;
    if (isRoot(parent)) {
      const vm = exposure.find(name);
      return vm === undefined ? undefined : this.#attr({ kind: 'vm', vm });
    }
    // A folder that is gone, of whose name there may be another one by now, is no empty one.
    const child = childOf(this.#get(parent), name);
    return child === undefined ? undefined : this.#attr(child);
  }

  getattr(node: NodeId): NodeAttr {
    if (isRoot(node)) return this.#directory(ROOT_NODE, this.#started);
    return this.#attr(this.#get(node));
  }

  readdir(node: NodeId): DirectoryEntry[] {
    if (isRoot(node)) {
      return this.#options.exposure.list().map(({ name, number }) => ({
        name,
        node: { hi: number, lo: 0 },
        kind: 'directory' as const,
      }));
    }
    const found = this.#get(node);
    return namesIn(found).map((name) => {
      const child = childOf(found, name)!;
      const kind = child.kind === 'disk' || child.kind === 'configuration' ? 'file' : 'directory';
      return { name, node: nodeOf(child), kind };
    });
  }

  async open(node: NodeId, intent: OpenIntent): Promise<OpenedNode> {
    const { files } = this.#options;
    // Waits while the disks of the VM change to others: which ones are looked up afterwards.
    await files.enter(node, intent.direct);
    try {
      const opened = await this.#open(node, intent);
      if (opened.kind === 'content') files.leave(node);
      return opened;
    } catch (error) {
      files.leave(node);
      throw error;
    }
  }

  async #open(node: NodeId, intent: OpenIntent): Promise<OpenedNode> {
    const found = this.#get(node);
    if (found.kind === 'configuration') {
      if (intent.write) throw readOnly(`${found.vm.name}/${CONFIGURATION}`);
      return { kind: 'content', bytes: Buffer.from(found.vm.configuration) };
    }
    if (found.kind !== 'disk') {
      throw new DiskError('failed', 'a folder cannot be opened as a file', { errno: 'EISDIR' });
    }
    const { disk } = found;
    if (intent.write && disk.readOnly) throw readOnly(disk.fileName);
    const { engine } = this.#options;
    try {
      const { handle } = await engine.volumes.acquire(disk.top, { writable: disk.writable });
      // What is read-only stays what it is as long as it is open.
      const flatFile = disk.readOnly ? engine.flatFile(handle) : undefined;
      return { kind: 'device', handle, ...(flatFile === undefined ? {} : { flatFile }) };
    } catch (error) {
      this.#options.onProblem(`${pathOf(found)} cannot be opened`, error);
      throw unreadable(error);
    }
  }

  async beforeReopen(nodes: readonly NodeId[]): Promise<void> {
    const heads = nodes.flatMap((node) => {
      const found = this.#find(node);
      return found?.kind === 'disk' && found.disk.writable ? [found.disk.top] : [];
    });
    await this.#options.engine.deltas.prepareToOpen(heads);
  }

  async reopen(node: NodeId, handle: number): Promise<void> {
    const { volumes } = this.#options.engine;
    const found = this.#find(node);
    if (found?.kind !== 'disk') {
      volumes.abandonRow(handle);
      throw new DiskError('not-found', 'the disk of an open file is gone', { errno: 'EIO' });
    }
    const { top, writable } = found.disk;
    const { files } = this.#options;
    try {
      await volumes.reopen(top, { writable, row: handle });
    } catch (error) {
      files.lose(node);
      throw error;
    }
    files.inherit(node);
  }

  release(node: NodeId, handle: number): void {
    this.#options.files.leave(node);
    this.#options.engine.volumes.release({ handle });
  }

  statfs(): FileSystemSizes {
    return freeSpace(this.#options.store);
  }

  #get(node: NodeId): Found {
    const found = this.#find(node);
    if (found !== undefined) return found;
    throw new DiskError('not-found', 'this file or folder is gone', { errno: 'ESTALE' });
  }

  #find(node: NodeId): Found | undefined {
    const vm = this.#options.exposure.findByNumber(node.hi);
    if (vm === undefined) return undefined;
    const { folder, snapshots, configuration } = vm.nodes;
    if (node.lo === folder) return { kind: 'vm', vm };
    if (node.lo === snapshots) return { kind: 'snapshots', vm };
    if (node.lo === configuration) return { kind: 'configuration', vm };
    const head = vm.disks.find((disk) => disk.node === node.lo);
    if (head !== undefined) return { kind: 'disk', vm, disk: head };
    for (const snapshot of vm.snapshots) {
      if (snapshot.node === node.lo) return { kind: 'snapshot', vm, snapshot };
      const disk = snapshot.disks.find((each) => each.node === node.lo);
      if (disk !== undefined) return { kind: 'disk', vm, snapshot, disk };
    }
    return undefined;
  }

  #attr(found: Found): NodeAttr {
    const { vm } = found;
    const node = nodeOf(found);
    if (found.kind === 'disk') return this.#diskAttr(node, found.disk);
    if (found.kind === 'configuration') {
      const size = Buffer.byteLength(vm.configuration);
      return this.#file(node, {
        size,
        allocatedSize: size,
        mode: READ_ONLY_MODE,
        mtime: vm.created,
      });
    }
    return this.#directory(node, found.kind === 'snapshot' ? found.snapshot.created : vm.created);
  }

  #diskAttr(node: NodeId, disk: ExposedDisk): NodeAttr {
    let facts = { allocatedSize: 0, mtime: this.#started };
    try {
      const { allocatedSize, dataPath } = this.#options.engine.chainFacts(disk.top);
      facts = { allocatedSize, mtime: statSync(dataPath).mtimeMs };
    } catch {
      // Its name stays: whoever opens it is told what is wrong.
    }
    const mode = disk.readOnly ? READ_ONLY_MODE : HEAD_MODE;
    return this.#file(node, { ...facts, size: disk.size, mode });
  }

  #directory(node: NodeId, mtime: number): NodeAttr {
    const { uid, gid } = this.#options;
    const sizes = { size: 0, allocatedSize: 0 };
    return { node, kind: 'directory', ...sizes, mode: DIRECTORY_MODE, uid, gid, mtime, nlink: 2 };
  }

  #file(
    node: NodeId,
    facts: Pick<NodeAttr, 'size' | 'allocatedSize' | 'mode' | 'mtime'>,
  ): NodeAttr {
    const { uid, gid } = this.#options;
    return { node, kind: 'file', ...facts, uid, gid, nlink: 1 };
  }
}

function isRoot(node: NodeId): boolean {
  return node.hi === ROOT_NODE.hi && node.lo === ROOT_NODE.lo;
}

function nodeOf(found: Found): NodeId {
  const { vm } = found;
  const hi = vm.number;
  switch (found.kind) {
    case 'vm':
      return { hi, lo: vm.nodes.folder };
    case 'snapshots':
      return { hi, lo: vm.nodes.snapshots };
    case 'configuration':
      return { hi, lo: vm.nodes.configuration };
    case 'snapshot':
      return { hi, lo: found.snapshot.node };
    case 'disk':
      return { hi, lo: found.disk.node };
  }
}

function namesIn(found: Found): string[] {
  switch (found.kind) {
    case 'vm':
      return [...found.vm.disks.map((disk) => disk.fileName), SNAPSHOTS, CONFIGURATION];
    case 'snapshots':
      return found.vm.snapshots.map((snapshot) => snapshot.name);
    case 'snapshot':
      return found.snapshot.disks.map((disk) => disk.fileName);
    default:
      return [];
  }
}

function childOf(found: Found, name: string): Found | undefined {
  const { vm } = found;
  if (found.kind === 'vm') {
    if (name === SNAPSHOTS) return { kind: 'snapshots', vm };
    if (name === CONFIGURATION) return { kind: 'configuration', vm };
    return diskNamed(vm, vm.disks, name);
  }
  if (found.kind === 'snapshots') {
    const snapshot = vm.snapshots.find((each) => each.name === name);
    return snapshot === undefined ? undefined : { kind: 'snapshot', vm, snapshot };
  }
  if (found.kind !== 'snapshot') return undefined;
  return diskNamed(vm, found.snapshot.disks, name, found.snapshot);
}

function diskNamed(
  vm: ExposedVm,
  disks: readonly ExposedDisk[],
  name: string,
  snapshot?: ExposedSnapshot,
): Found | undefined {
  const disk = disks.find((each) => each.fileName === name);
  if (disk === undefined) return undefined;
  return { kind: 'disk', vm, ...(snapshot === undefined ? {} : { snapshot }), disk };
}

/** Below the mountpoint. */
function pathOf({ vm, snapshot, disk }: Extract<Found, { kind: 'disk' }>): string {
  const folder = snapshot === undefined ? vm.name : `${vm.name}/${SNAPSHOTS}/${snapshot.name}`;
  return `${folder}/${disk.fileName}`;
}

/** ENOENT would be a lie: the file is there, and what it shows is not. */
function unreadable(error: unknown): unknown {
  if (!(error instanceof DiskError) || error.code !== 'not-found') return error;
  return new DiskError('damaged', error.message, { errno: 'EIO', cause: error });
}

function readOnly(what: string): DiskError {
  return new DiskError('not-permitted', `${what} is read-only`, { errno: 'EROFS' });
}
