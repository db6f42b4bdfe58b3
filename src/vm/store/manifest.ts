/**
 * The manifest: one JSON file that says all there is to know of one VM; its file name is the VM's
 * name.
 */
import * as z from 'zod';
import { DiskError } from '../../common/errors.js';
import { formatSealed, parseSealed } from '../../common/sealed-json.js';
import { MAX_DISK_SIZE, MIN_DISK_SIZE, SECTOR_SIZE } from '../../common/units.js';
import type { DeltaId } from '../../engine/delta-id.js';
import { isName } from './names.js';

const MANIFEST_VERSION = 1;

/**
 * Nodes 0 to 15 of every VM are fixed (its folder and the like); those of disks and snapshots
 * follow.
 */
export const NODE = { vm: 0, snapshots: 1, configuration: 2, first: 16 } as const;
const MAX_U32 = 0xffff_ffff;

const name = z.string().refine(isName, 'is no valid name');
const delta = z.string().regex(/^[0-9a-f]{32}$/, 'is no delta id');
const node = z.int().min(NODE.first).max(MAX_U32);
const time = z.iso.datetime();
const size = z.int().min(MIN_DISK_SIZE).max(MAX_DISK_SIZE).multipleOf(SECTOR_SIZE);
const allocation = z.enum(['dynamic', 'static']);

const nic = z.strictObject({
  mode: z.enum(['nat', 'bridged', 'host-only', 'internal', 'none']),
  mac: z.string().regex(/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/, 'is no MAC address'),
  network: name.exactOptional(),
});

const hardware = {
  vcpus: z.int().min(1),
  /** Bytes. */
  memory: z.int().min(1),
  nics: z.array(nic).readonly(),
};

/** See disk-kinds.ts; normal ones say nothing. */
const kind = {
  kind: z.enum(['write-through', 'immutable', 'read-only']).exactOptional(),
  /** What an immutable disk goes back to when the guest starts. */
  start: delta.exactOptional(),
};
const disk = z.strictObject({ name, node, size, allocation, ...kind, head: delta });
/** Of one disk: what its guest knows it by. */
const serial = z.string().regex(/^[\x21-\x7e]{1,20}$/);
const snapshotDisk = z.strictObject({
  ...{ name, node, size, allocation, ...kind, delta },
  /**
   * Of the disk's file, from which its serial number comes: for one that is removed and restored.
   */
  headNode: node.exactOptional(),
  /** Where it had another one. */
  serial: serial.exactOptional(),
});

/** What a guest must be started as to take its memory back. */
const setup = z.strictObject({
  /** Of QEMU, as `7.2.22`. */
  version: z.string(),
  /** A versioned machine type, as `pc-q35-7.2`. */
  machine: z.string(),
  accelerator: z.enum(['kvm', 'tcg']),
  /** The host's, where the guest saw that. */
  processor: z.string().exactOptional(),
  /** What QEMU was given besides. */
  arguments: z.array(z.string()).readonly(),
  /** The folder that relative paths in those start from. */
  folder: z.string(),
});

/** Memory and devices of a guest: `memory/ID.state`. */
const memoryState = z.strictObject({
  id: z.string().regex(/^[0-9a-f]{32}$/, 'is no id'),
  /** Bytes of the file. */
  size: z.int().min(1),
  /** CRC-32C of the file. */
  checksum: z.string().regex(/^[0-9a-f]{8}$/, 'is no checksum'),
  setup,
});

const snapshot = z.strictObject({
  id: z.uuid(),
  name,
  /** The folder's node. */
  node,
  created: time,
  message: z.string().exactOptional(),
  /** The snapshot it was taken on top of. */
  parent: z.uuid().nullable(),
  /** `consistent`, or why not. */
  consistency: z.string(),
  ...hardware,
  disks: z.array(snapshotDisk).readonly(),
  /** Of the guest at the instant of the snapshot. */
  memoryState: memoryState.exactOptional(),
});

/**
 * The memory that the next run goes on with, and what it belongs to: this hardware, and disks on
 * which nothing was written since these deltas were sealed.
 */
const resume = z.strictObject({
  /** The snapshot's name when it was restored. */
  snapshot: name,
  memoryState,
  ...hardware,
  disks: z.array(z.strictObject({ name, kind: kind.kind, delta })).readonly(),
});

const origin = z.strictObject({
  /** The source's name at that time. */
  vm: name,
  vmId: z.uuid(),
  snapshot: name,
  snapshotId: z.uuid(),
  /** Ids of all VMs whose deltas this one may stand on, the source last. */
  lineage: z.array(z.uuid()).readonly(),
});

const manifestSchema = z.strictObject({
  version: z.literal(MANIFEST_VERSION),
  id: z.uuid(),
  /** Unique in the store: the upper half of the VM's inode numbers. */
  number: z.int().min(1).max(MAX_U32),
  created: time,
  ...hardware,
  disks: z.array(disk).readonly(),
  snapshots: z.array(snapshot).readonly(),
  /** The snapshot that the present state stands on. */
  current: z.uuid().nullable(),
  /** The next node to give out; none is ever used again. */
  nextNode: z.int().min(NODE.first).max(MAX_U32),
  /** Linked clones only. */
  origin: origin.exactOptional(),
  /** By disk: serial numbers that a clone kept. All others come from the id. */
  serials: z.record(name, serial).exactOptional(),
  /** There from the restoring of a snapshot with memory until the guest runs. */
  resume: resume.exactOptional(),
});

export type Manifest = Readonly<z.infer<typeof manifestSchema>>;
export type NicRecord = Readonly<z.infer<typeof nic>>;
export type DiskRecord = Readonly<z.infer<typeof disk>>;
export type SnapshotRecord = Readonly<z.infer<typeof snapshot>>;
export type OriginRecord = Readonly<z.infer<typeof origin>>;
export type GuestSetup = Readonly<z.infer<typeof setup>>;
export type MemoryState = Readonly<z.infer<typeof memoryState>>;
export type ResumeRecord = Readonly<z.infer<typeof resume>>;

/** The part that snapshots carry a copy of and clones may override. */
export interface Hardware {
  readonly vcpus: number;
  readonly memory: number;
  readonly nics: readonly NicRecord[];
}

export function hardwareOf({ vcpus, memory, nics }: Hardware): Hardware {
  return { vcpus, memory, nics };
}

export function formatManifest(manifest: Manifest): string {
  return formatSealed(manifest);
}

/**
 * @param vm the VM's name, for errors.
 * @throws DiskError `damaged` naming the VM and what is wrong with its manifest.
 */
export function parseManifest(vm: string, text: string): Manifest {
  let json: unknown;
  let intact: boolean;
  try {
    ({ json, intact } = parseSealed(text));
  } catch (error) {
    // The message may quote the file, line breaks and all.
    const why = String(error instanceof Error ? error.message : error).replace(/\s+/g, ' ');
    throw damaged(vm, `is not JSON (${why.slice(0, 100)})`);
  }
  checkVersion(vm, json);
  if (!intact) throw damaged(vm, 'does not match its checksum', EDITED_HINT);
  const parsed = manifestSchema.safeParse(json);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw damaged(vm, `is invalid: ${issue?.path.join('.') ?? ''} ${issue?.message ?? ''}`.trim());
  }
  const contradiction = findContradiction(parsed.data);
  if (contradiction !== undefined) throw damaged(vm, `is invalid: ${contradiction}`);
  return parsed.data;
}

function checkVersion(vm: string, json: unknown): void {
  const version =
    typeof json === 'object' && json !== null && 'version' in json ? json.version : undefined;
  if (typeof version === 'number' && version > MANIFEST_VERSION) {
    throw new DiskError(
      'not-supported',
      `VM "${vm}": its manifest has version ${version}, this layerdisk knows ${MANIFEST_VERSION}`,
      { hint: 'use the newer layerdisk that wrote it', errno: 'EIO' },
    );
  }
}

const DAMAGED_HINT =
  'take its copy: layerdisk check --repair; or restore it from a backup. Nothing was removed';
const EDITED_HINT =
  'take its copy: layerdisk check --repair; if the change was yours, remove the line "checksum"';

function damaged(vm: string, what: string, hint = DAMAGED_HINT): DiskError {
  return new DiskError('damaged', `VM "${vm}": its manifest vms/${vm}.json ${what}`, {
    hint,
    errno: 'EIO',
  });
}

/** What no schema can say: references and uniqueness. Answers the first contradiction in words. */
function findContradiction(manifest: Manifest): string | undefined {
  const { disks, snapshots } = manifest;
  const ids = new Set(snapshots.map((each) => each.id));
  const nodes = [
    ...disks.map((each) => each.node),
    ...snapshots.flatMap((each) => [each.node, ...each.disks.map((entry) => entry.node)]),
  ];
  if (ids.size !== snapshots.length) return 'two snapshots have one id';
  if (!areUnique(snapshots.map((each) => each.name))) return 'two snapshots have one name';
  if (!areUnique(nodes)) return 'a node is used twice';
  if (nodes.some((each) => each >= manifest.nextNode)) return 'nextNode was given out already';
  if (!areUnique(disks.map((each) => each.name))) return 'two disks have one name';
  if (!areUnique(disks.map((each) => each.head))) return 'two disks have one head';
  if (manifest.current !== null && !ids.has(manifest.current))
    return 'current is no snapshot of it';
  const sealed = new Set<DeltaId>();
  for (const each of snapshots) {
    if (!areUnique(each.disks.map((entry) => entry.name))) {
      return `two disks of snapshot ${each.name} have one name`;
    }
    if (each.parent !== null && !ids.has(each.parent)) return `${each.name} has an unknown parent`;
    for (const entry of each.disks) sealed.add(entry.delta);
  }
  for (const entry of [...disks, ...snapshots.flatMap((each) => each.disks)]) {
    if ((entry.kind === 'immutable') !== (entry.start !== undefined)) {
      return `disk ${entry.name} is immutable, or has a start, but not both`;
    }
    if (entry.start !== undefined) sealed.add(entry.start);
  }
  if (disks.some((each) => sealed.has(each.head)))
    return 'a head is the delta of a snapshot or a start, too';
  return findCycle(snapshots);
}

function areUnique(values: readonly unknown[]): boolean {
  return new Set(values).size === values.length;
}

function findCycle(snapshots: readonly SnapshotRecord[]): string | undefined {
  const parents = new Map(snapshots.map((each) => [each.id, each.parent]));
  const rooted = new Set<string>();
  for (const start of snapshots) {
    const path = new Set<string>();
    for (let id: string | null = start.id; id !== null && !rooted.has(id); ) {
      if (path.has(id)) return `snapshot ${start.name} is its own ancestor`;
      path.add(id);
      id = parents.get(id) ?? null;
    }
    for (const id of path) rooted.add(id);
  }
  return undefined;
}

/** @throws DiskError `not-found`, naming those that there are. */
export function findDisk(vm: string, { disks }: Manifest, name: string): DiskRecord {
  const found = disks.find((disk) => disk.name === name);
  if (found !== undefined) return found;
  throw new DiskError('not-found', `"${vm}" has no disk "${name}"`, {
    hint: `it has: ${disks.map((disk) => disk.name).join(', ')}`,
  });
}

/**
 * Every delta that the manifest names: heads and snapshots, and those that a memory belongs to.
 * What lies below them is not in here.
 */
export function labelledDeltas(manifest: Manifest): DeltaId[] {
  return [
    ...manifest.disks.map((each) => each.head),
    ...manifest.snapshots.flatMap((each) => each.disks.map((entry) => entry.delta)),
    ...[manifest, ...manifest.snapshots].flatMap((each) =>
      each.disks.flatMap((entry) => entry.start ?? []),
    ),
    ...(manifest.resume?.disks ?? []).map((entry) => entry.delta),
  ];
}

/** Every memory that the manifest names. */
export function memoryStates({ snapshots, resume }: Manifest): MemoryState[] {
  return [...snapshots, resume].flatMap((each) => each?.memoryState ?? []);
}

/** Nodes of all raw files, those of snapshots included. */
export function diskNodes(manifest: Manifest): number[] {
  return [manifest, ...manifest.snapshots].flatMap((each) => each.disks.map(({ node }) => node));
}

/** Every MAC address in it, those of snapshots included: they come back with a restore. */
export function macsOf(manifest: Manifest): string[] {
  const all = [manifest, ...manifest.snapshots].flatMap((each) =>
    each.nics.map((entry) => entry.mac),
  );
  return [...new Set(all)];
}
