/**
 * What goes over the control socket: methods with their parameters and results. Shared by both
 * ends. JSON-RPC 2.0, one object a line; methods are named as the commands. Sizes are integers in
 * bytes, times ISO 8601.
 */

import type { DiffPage, DiffPlace } from '../common/disk-diff.js';
import type { MapPage } from '../common/extent-map.js';
import type { EventsEnd, EventView } from './events.js';
import type {
  Allocation,
  AttachView,
  CheckView,
  CompactView,
  DaemonStatus,
  DiskKindChange,
  DiskSpec,
  ExportView,
  FormatName,
  GcView,
  HardwareChange,
  ImportView,
  MachineFileKind,
  MachineFilesView,
  MacPolicy,
  MountView,
  OvaView,
  RunPlan,
  SnapshotView,
  StatsView,
  TreeNode,
  VmSummary,
  VmView,
} from './shapes.js';

export type * from './events.js';
export type * from './shapes.js';

/** Longest request that the daemon accepts, bytes with its newline left out. */
export const MAX_MESSAGE_BYTES = 1024 * 1024;
/**
 * Longest answer that a client accepts: a store of 10,000 VMs does not fit into a request's limit.
 */
export const MAX_ANSWER_BYTES = 64 * 1024 * 1024;

/** Most extents in one answer of `map`, and of `snapshot.diff`. */
export const MAX_MAP_EXTENTS = 1000;
export const MAX_DIFF_EXTENTS = 4000;

/** What VMs, snapshots and disks may be called. */
export const NAME_PATTERN = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
export const NAME_RULE =
  'a name of 1 to 64 letters, digits, ".", "_" and "-", the first a letter or a digit';

/** A reference `VM` or `VM@SNAPSHOT`, and which disk where there are several. */
export interface Target {
  readonly vm: string;
  readonly snapshot?: string;
  readonly disk?: string;
}

type None = Record<string, never>;

/** method -> parameters and result. */
export interface Methods {
  'daemon.status': { params: None; result: DaemonStatus };
  'daemon.stop': { params: None; result: None };
  /** A new process of the daemon's program takes over; the mount and what uses it stay. */
  'daemon.restart': { params: None; result: None };
  create: {
    params: { vm: string; disks: readonly DiskSpec[] } & HardwareChange;
    result: VmView;
  };
  import: {
    params: {
      /** Absolute paths; each becomes a disk. Or one machine file, which becomes all of the VM. */
      files: readonly string[];
      /** May be left out for a machine file: then it has the machine's own name. */
      vm?: string;
      format?: FormatName | 'auto';
      copy?: boolean;
      /** Folders besides the image's own in which parents may lie. */
      allowFolders?: readonly string[];
      /** Take this file as the parent that the image names. */
      parent?: string;
      /** Name or id of the snapshot inside each image (qcow2), instead of its present state. */
      imageSnapshot?: string;
    } & HardwareChange;
    result: ImportView;
  };
  list: { params: None; result: readonly VmSummary[] };
  info: { params: { vm: string }; result: VmView };
  tree: { params: { vm?: string }; result: readonly TreeNode[] };
  rename: { params: { vm: string; name: string }; result: VmView };
  delete: { params: { vm: string }; result: { kept: number } };
  set: {
    params: { vm: string; diskKinds?: readonly DiskKindChange[] } & HardwareChange;
    result: VmView;
  };
  /** One more disk, empty. */
  'disk.add': { params: { vm: string; disk: DiskSpec }; result: VmView };
  /** Without one of its disks from now on; snapshots keep theirs. */
  'disk.remove': { params: { vm: string; disk: string }; result: VmView };
  /** `shrink`: agrees to losing what lies past the new end. */
  'disk.resize': {
    params: { vm: string; disk: string; size: number; shrink?: boolean };
    result: VmView;
  };
  path: { params: Target; result: { path: string } };
  /** Who answers for the bytes of a disk: ask again from `next` on until there is none. */
  map: {
    params: Target & {
      /** Byte to begin at; default 0. */
      start?: number;
      /** Most extents that the answer may have; default and at most `MAX_MAP_EXTENTS`. */
      limit?: number;
    };
    result: MapPage;
  };
  /**
   * Prepares running a VM; QEMU is then started by whoever asked, who holds the lock in the folder.
   * `discardMemory`: it is to start cold, and the memory that it waits with is given up. `start`:
   * the caller holds the lock, and immutable disks are put back unless the guest goes on with a
   * memory.
   */
  run: { params: { vm: string; discardMemory?: boolean; start?: boolean }; result: RunPlan };
  /** QEMU has read the memory that the plan named, and is about to go on: it is used up. */
  'run.resumed': { params: { vm: string }; result: None };
  /**
   * Asks a guest to power off and waits until it has, by default a minute; `force`: ends it at
   * once.
   */
  stop: { params: { vm: string; force?: boolean; timeoutSeconds?: number }; result: None };
  /** Accept a referenced base as it is now, although it changed. */
  'base.accept': { params: { vm: string }; result: { accepted: readonly string[] } };
  attach: { params: Target & { readOnly?: boolean; directIo?: boolean }; result: AttachView };
  detach: { params: { target?: Target; device?: string }; result: { devices: readonly string[] } };
  mount: {
    params: Target & { directory: string; partition?: number; readOnly?: boolean };
    result: MountView;
  };
  unmount: { params: { directory: string }; result: None };
  'snapshot.take': {
    params: {
      vm: string;
      snapshot: string;
      message?: string;
      /** With the memory and the devices of the guest, which must run. */
      memory?: boolean;
    };
    result: SnapshotView;
  };
  'snapshot.list': { params: { vm: string }; result: readonly SnapshotView[] };
  'snapshot.delete': { params: { vm: string; snapshot: string }; result: None };
  'snapshot.rename': {
    params: { vm: string; snapshot: string; name: string };
    result: SnapshotView;
  };
  'snapshot.restore': {
    params: {
      vm: string;
      snapshot: string;
      /**
       * Take a snapshot of the current state first; a text names it. Exactly one of the two must be
       * given.
       */
      saveCurrent?: boolean | string;
      discard?: boolean;
    };
    result: { restored: SnapshotView; saved?: SnapshotView };
  };
  /**
   * Which blocks differ between a snapshot and another state of the same VM: ask again with what
   * `next` says until there is none.
   */
  'snapshot.diff': {
    params: {
      vm: string;
      /** A snapshot. */
      from: string;
      /** Another one; default: the present state. */
      to?: string;
      /** Default: all disks. */
      disk?: string;
      next?: DiffPlace;
      /** Most extents that the answer may have; default and at most `MAX_DIFF_EXTENTS`. */
      limit?: number;
    };
    result: DiffPage;
  };
  clone: {
    params: Target & {
      name: string;
      mode: 'linked' | 'full';
      mac?: MacPolicy;
      /** Of the disks, as the guest sees them; default `new`. */
      serials?: 'new' | 'keep';
    } & HardwareChange;
    /** `coldStart`: the snapshot has a memory, with which the clone does not go on. */
    result: {
      vm: VmView;
      tookSnapshot?: string;
      coldStart?: true;
      /** Write-through disks, which a linked clone does not have. */
      leftOut?: readonly string[];
    };
  };
  /** One disk as an image file. */
  export: {
    params: Target & {
      /** Absolute. */
      path: string;
      format: FormatName;
      /** Default: the first that `formats/` names for the format. */
      subformat?: string;
      allocation?: Allocation;
      /** Only what was changed, as a child of the image that the disk was imported from. */
      differencing?: boolean;
      /** Replace a file that is there already. */
      force?: boolean;
    };
    result: ExportView;
  };
  /** All disks of a VM at one instant, with its hardware, as an OVA. */
  'export.ova': {
    params: {
      vm: string;
      snapshot?: string;
      /** Absolute. */
      path: string;
      /** Replace a file that is there already. */
      force?: boolean;
    };
    result: OvaView;
  };
  /**
   * Files by which another program runs on the exposed disks of a VM; refused while something uses
   * them.
   */
  'export.machine': {
    params: {
      vm: string;
      kind: MachineFileKind;
      /** For `vmdk`, where there are several. */
      disk?: string;
      /** Absolute; absent: only the text, which `libvirt-xml` alone is. */
      path?: string;
      /** Replace files that are there already. */
      force?: boolean;
    };
    result: MachineFilesView;
  };
  /** Gives back space that nobody needs; the VM may be in use. */
  compact: { params: { vm: string }; result: CompactView };
  gc: { params: { dryRun?: boolean }; result: GcView };
  stats: { params: { vm?: string }; result: StatsView };
  /** Tells what happens, each time in a notification `event`, until it is cancelled. */
  events: { params: None; result: { end: EventsEnd } };
  /** `deep` reads every block that has a checksum; only `repair` changes anything. */
  check: { params: { vm?: string; deep?: boolean; repair?: boolean }; result: CheckView };
}

export type MethodName = keyof Methods;
export type Params<M extends MethodName> = Methods[M]['params'];
export type Result<M extends MethodName> = Methods[M]['result'];

/** Notification `progress` for a request under way; `id` is the request's. */
export interface ProgressNotice {
  readonly id: number | string;
  readonly what: string;
  readonly doneBytes: number;
  readonly totalBytes: number;
}

/** What the daemon offers for each method: the control server calls these and nothing else. */
export interface CallContext {
  readonly signal: AbortSignal;
  progress(what: string, doneBytes: number, totalBytes: number): void;
  /** A client that does not keep up misses some, and is told how many. */
  event(event: EventView): void;
}

export type Handlers = {
  readonly [M in MethodName]: (params: Params<M>, context: CallContext) => Promise<Result<M>>;
};
