/** VMs as the control protocol shows them. */
import { join } from 'node:path';
import type {
  BaseImageView,
  DiskView,
  SnapshotView,
  TreeNode,
  VmSummary,
  VmView,
  WaitingMemory,
} from '../../control/protocol.js';
import type { DeltaId } from '../../engine/delta-id.js';
import { diskSerial } from '../../guest/disk-serial.js';
import { kindOf } from '../../vm/disk-kinds.js';
import { exposedPath } from '../../vm/exposure.js';
import { childrenOf, snapshotById } from '../../vm/snapshot-tree.js';
import type {
  DiskRecord,
  Manifest,
  ResumeRecord,
  SnapshotRecord,
} from '../../vm/store/manifest.js';
import type { DamagedVm, VmEntry } from '../../vm/store/vm-catalog.js';
import type { VmService } from '../../vm/vm-service.js';
import type { Guests } from '../guests.js';

/** What views need besides the manifests. */
export interface ViewSources {
  readonly service: VmService;
  /** Absolute. */
  readonly mountpoint: string;
  /** Whether somebody has this chain open. */
  readonly isOpen: (top: DeltaId) => boolean;
  /** Bytes that this delta alone takes on the host. */
  readonly storedSize: (id: DeltaId) => number;
  readonly guests: Guests;
}

export function summarize(entry: VmEntry, guests: Pick<Guests, 'view'>): VmSummary {
  const { name, facts } = entry;
  const guest = guests.view(entry.number);
  return {
    name,
    vcpus: facts.vcpus,
    memory: facts.memory,
    nics: facts.nicCount,
    disks: facts.diskCount,
    size: facts.size,
    snapshots: facts.snapshotCount,
    created: facts.created,
    ...(guest === undefined ? {} : { guest }),
  };
}

/** A VM of which nothing but its name and what is wrong with it is known. */
export function summarizeDamaged({ name, problem }: DamagedVm): VmSummary {
  const nothing = { vcpus: 0, memory: 0, nics: 0, disks: 0, size: 0, snapshots: 0 };
  return { name, ...nothing, created: new Date(0).toISOString(), problem: problem.message };
}

export function viewVm(sources: ViewSources, name: string): VmView {
  const manifest = sources.service.read(name);
  const { id, created, vcpus, memory, nics, disks, snapshots, origin, resume } = manifest;
  const guest = sources.guests.view(manifest.number);
  const sharedMacs = sources.service.sharedMacs(name);
  return {
    name,
    id,
    created,
    vcpus,
    memory,
    nics,
    disks: disks.map((disk) => viewDisk(sources, name, manifest, disk)),
    snapshots: snapshots.map((each) => viewSnapshot(sources, name, manifest, each)),
    ...(origin === undefined ? {} : { origin: nameOrigin(sources, origin) }),
    ...(guest === undefined ? {} : { guest }),
    ...(resume === undefined ? {} : { resume: viewResume(name, resume) }),
    ...(sharedMacs.length === 0 ? {} : { sharedMacs }),
  };
}

function viewResume(vm: string, { snapshot, memoryState }: ResumeRecord): WaitingMemory {
  return { from: `${vm}@${snapshot}`, size: memoryState.size };
}

export function viewSnapshot(
  { mountpoint }: ViewSources,
  vm: string,
  tree: Manifest,
  snapshot: SnapshotRecord,
): SnapshotView {
  const { name, created, message, consistency, vcpus, memory, memoryState } = snapshot;
  const parent = snapshotById(tree, snapshot.parent);
  return {
    name,
    created,
    ...(message === undefined ? {} : { message }),
    ...(parent === undefined ? {} : { parent: parent.name }),
    current: tree.current === snapshot.id,
    vcpus,
    memory,
    consistency,
    ...(memoryState === undefined ? {} : { memoryState: memoryState.size }),
    disks: snapshot.disks.map((disk) => ({
      name: disk.name,
      size: disk.size,
      path: join(mountpoint, exposedPath(vm, name, disk.name)),
    })),
  };
}

/**
 * A VM's snapshots as a tree, the present state among them.
 * @param clones names of linked clones by the id of the snapshot they were made from.
 */
export function viewTree(
  name: string,
  manifest: Manifest,
  clones: ReadonlyMap<string, readonly string[]>,
): TreeNode {
  const present: TreeNode = { kind: 'current', name: 'current', children: [] };
  const under = (id: string | null): TreeNode[] => {
    const nodes = childrenOf(manifest, id).map((snapshot) => viewNode(snapshot));
    return manifest.current === id ? [...nodes, present] : nodes;
  };
  const viewNode = (snapshot: SnapshotRecord): TreeNode => {
    const { id, created, message, memoryState } = snapshot;
    const standing = clones.get(id);
    return {
      kind: 'snapshot',
      name: snapshot.name,
      created,
      ...(message === undefined ? {} : { message }),
      ...(memoryState === undefined ? {} : { memoryState: memoryState.size }),
      ...(standing === undefined ? {} : { clones: standing }),
      children: under(id),
    };
  };
  return { kind: 'vm', name, created: manifest.created, children: under(null) };
}

/** Names of linked clones by the id of the snapshot they were made from. */
export function clonesBySnapshot(entries: readonly VmEntry[]): Map<string, string[]> {
  const clones = new Map<string, string[]>();
  for (const { name, facts } of entries) {
    if (facts.origin === undefined) continue;
    const { snapshotId } = facts.origin;
    const known = clones.get(snapshotId);
    if (known === undefined) clones.set(snapshotId, [name]);
    else known.push(name);
  }
  return clones;
}

function viewDisk(
  sources: ViewSources,
  vm: string,
  { id, serials }: Manifest,
  disk: DiskRecord,
): DiskView {
  const { service, mountpoint } = sources;
  const { name, size, allocation, head } = disk;
  const { depth, bytes, base } = service.chainFacts(head);
  return {
    name,
    size,
    allocation,
    kind: kindOf(disk),
    headBytes: sources.storedSize(head),
    chainBytes: bytes,
    depth,
    ...(base === undefined ? {} : { base: viewBase(service, base) }),
    serial: serials?.[disk.name] ?? diskSerial(id, disk.node),
    path: join(mountpoint, exposedPath(vm, undefined, name)),
    open: sources.isOpen(head),
  };
}

function viewBase(service: VmService, id: string): BaseImageView {
  const { path, options, spec } = service.readBase(id);
  const { format, snapshot } = options;
  const { virtualSize } = spec;
  return { path, format, ...(snapshot === undefined ? {} : { snapshot }), virtualSize };
}

/** `VM@SNAPSHOT` by today's names; the names at cloning time where one is gone. */
function nameOrigin({ service }: ViewSources, origin: NonNullable<Manifest['origin']>): string {
  const entry = service.findById(origin.vmId);
  if (entry === undefined) return `${origin.vm}@${origin.snapshot}`;
  const snapshot = snapshotById(service.read(entry.name), origin.snapshotId);
  return `${entry.name}@${snapshot?.name ?? origin.snapshot}`;
}
