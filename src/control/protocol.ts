/**
 * What goes over the control socket: methods with their parameters and results. Shared by both
 * ends. JSON-RPC 2.0, one object a line; methods are named as the commands. Sizes are integers in
 * bytes, times ISO 8601.
 */

/** Longest request that the daemon accepts, bytes with its newline left out. */
export const MAX_MESSAGE_BYTES = 1024 * 1024;
/**
 * Longest answer that a client accepts: a store of 10,000 VMs does not fit into a request's limit.
 */
export const MAX_ANSWER_BYTES = 64 * 1024 * 1024;

/** What VMs, snapshots and disks may be called. */
export const NAME_PATTERN = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
export const NAME_RULE =
  'a name of 1 to 64 letters, digits, ".", "_" and "-", the first a letter or a digit';

export type NicMode = 'nat' | 'bridged' | 'host-only' | 'internal' | 'none';
export type Allocation = 'dynamic' | 'static';
export type MacPolicy = 'new' | 'keep' | 'keep-nat';
export type FormatName = 'raw' | 'vdi' | 'vmdk' | 'vhd' | 'vhdx' | 'qcow2';

/** As asked for: `mac` and `network` are optional. */
export interface NicSpec {
  readonly mode: NicMode;
  readonly mac?: string;
  readonly network?: string;
}

/** As configured. */
export interface Nic {
  readonly mode: NicMode;
  /** Lower case, colons. */
  readonly mac: string;
  readonly network?: string;
}

export interface DiskSpec {
  /** Default `disk0`, `disk1`, ... */
  readonly name?: string;
  readonly size: number;
  readonly allocation?: Allocation;
}

/** Hardware to change; what is absent stays. `nics` replaces all of them. */
export interface HardwareChange {
  readonly vcpus?: number;
  readonly memory?: number;
  readonly nics?: readonly NicSpec[];
}

/** The guest of a VM, while QEMU runs it. */
export interface GuestView {
  readonly pid: number;
  readonly since: string;
  readonly accelerator: 'kvm' | 'tcg';
  /** Unix socket of its serial console; absent: the terminal that it was started on. */
  readonly console?: string;
}

export interface BaseImageView {
  readonly path: string;
  readonly format: string;
  readonly virtualSize: number;
}

export interface DiskView {
  readonly name: string;
  readonly size: number;
  readonly allocation: Allocation;
  /** Bytes of the host that the head delta alone takes. */
  readonly headBytes: number;
  /** Bytes that all deltas of the chain take (shared ones included). */
  readonly chainBytes: number;
  /** Deltas in the chain, head included. */
  readonly depth: number;
  readonly base?: BaseImageView;
  /** What a guest sees as the disk's serial number; at most 20 characters. */
  readonly serial: string;
  /** The exposed raw file. */
  readonly path: string;
  /** Whether somebody has the file open. */
  readonly open: boolean;
}

export interface VmSummary {
  readonly name: string;
  readonly vcpus: number;
  readonly memory: number;
  readonly nics: number;
  readonly disks: number;
  /** Sum of the virtual sizes. */
  readonly size: number;
  readonly snapshots: number;
  readonly created: string;
  /** Absent while it does not run. */
  readonly guest?: GuestView;
  /** Why the VM can't be used; all numbers are 0 then. */
  readonly problem?: string;
}

export interface SnapshotView {
  readonly name: string;
  readonly created: string;
  readonly message?: string;
  /** The snapshot it was taken on top of; absent at the root. */
  readonly parent?: string;
  /** Whether the current state stands directly on it. */
  readonly current: boolean;
  readonly vcpus: number;
  readonly memory: number;
  /**
   * `consistent` when everything written before was in it. Of a guest that ran: `frozen: ...` (its
   * file systems were whole), `paused: ...` (what had reached its disks). `crash-consistent: ...`
   * says why not.
   */
  readonly consistency: string;
  readonly disks: readonly {
    readonly name: string;
    readonly size: number;
    readonly path: string;
  }[];
}

export interface VmView {
  readonly name: string;
  readonly id: string;
  readonly created: string;
  readonly vcpus: number;
  readonly memory: number;
  readonly nics: readonly Nic[];
  readonly disks: readonly DiskView[];
  readonly snapshots: readonly SnapshotView[];
  /** `VM@SNAPSHOT` that it was cloned from. */
  readonly origin?: string;
  /** Absent while it does not run. */
  readonly guest?: GuestView;
  /** MAC addresses that other VMs have, too: a clone may keep them. */
  readonly sharedMacs?: readonly SharedMac[];
}

export interface SharedMac {
  readonly mac: string;
  /** The other VMs. */
  readonly vms: readonly string[];
}

/** What QEMU is started from. */
export interface RunPlan {
  /** The hardware at an instant when no operation changes the VM. */
  readonly vm: VmView;
  /** Folder for the guest's sockets, lock and log; made if it was not there. */
  readonly folder: string;
  readonly storeId: string;
}

/**
 * One VM of `tree`: snapshots as nodes, the current state among them, clones under the snapshot
 * they stand on.
 */
export interface TreeNode {
  readonly kind: 'vm' | 'snapshot' | 'current';
  readonly name: string;
  readonly created?: string;
  readonly message?: string;
  /** Names of VMs that are linked clones of this snapshot. */
  readonly clones?: readonly string[];
  readonly children: readonly TreeNode[];
}

export interface DaemonStatus {
  readonly version: string;
  readonly pid: number;
  /**
   * The process that starts the daemon anew if it dies; it ends after the daemon when that is
   * stopped.
   */
  readonly supervisorPid?: number;
  readonly store: string;
  readonly mountpoint: string;
  readonly transport: 'kernel' | 'fuse-native';
  readonly threads: number;
  readonly startedAt: string;
  readonly vms: number;
  readonly openDisks: number;
  readonly allowOther: boolean;
}

export interface AttachView {
  readonly device: string;
  readonly path: string;
  readonly readOnly: boolean;
}

export interface MountView {
  readonly directory: string;
  readonly device: string;
  /** What was mounted: the device or a partition of it. */
  readonly source: string;
  readonly fileSystem: string;
}

/** Counters since the daemon started. */
export interface IoStats {
  readonly reads: number;
  readonly readBytes: number;
  readonly writes: number;
  readonly writtenBytes: number;
  readonly flushes: number;
  readonly discards: number;
}

export interface StatsView {
  readonly uptimeSeconds: number;
  readonly rssBytes: number;
  readonly indexBytes: number;
  readonly openDisks: number;
  readonly storeBytes: number;
  readonly storeFreeBytes: number;
  readonly io: IoStats;
  readonly vms?: readonly { readonly name: string; readonly disk: string; readonly io: IoStats }[];
}

export interface GcView {
  readonly dryRun: boolean;
  readonly files: readonly string[];
  readonly bytes: number;
}

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
  create: {
    params: { vm: string; disks: readonly DiskSpec[] } & HardwareChange;
    result: VmView;
  };
  import: {
    params: {
      /** Absolute paths; each becomes a disk. */
      files: readonly string[];
      vm: string;
      format?: FormatName | 'auto';
      copy?: boolean;
      /** Folders besides the image's own in which parents may lie. */
      allowFolders?: readonly string[];
      /** Take this file as the parent that the image names. */
      parent?: string;
    } & HardwareChange;
    result: VmView;
  };
  list: { params: None; result: readonly VmSummary[] };
  info: { params: { vm: string }; result: VmView };
  tree: { params: { vm?: string }; result: readonly TreeNode[] };
  rename: { params: { vm: string; name: string }; result: VmView };
  delete: { params: { vm: string }; result: { kept: number } };
  set: { params: { vm: string } & HardwareChange; result: VmView };
  path: { params: Target; result: { path: string } };
  /**
   * Prepares running a VM; QEMU is then started by whoever asked, who holds the lock in the folder.
   */
  run: { params: { vm: string }; result: RunPlan };
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
    params: { vm: string; snapshot: string; message?: string };
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
  clone: {
    params: Target & {
      name: string;
      mode: 'linked' | 'full';
      mac?: MacPolicy;
    } & HardwareChange;
    result: { vm: VmView; tookSnapshot?: string };
  };
  gc: { params: { dryRun?: boolean }; result: GcView };
  stats: { params: { vm?: string }; result: StatsView };
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
}

export type Handlers = {
  readonly [M in MethodName]: (params: Params<M>, context: CallContext) => Promise<Result<M>>;
};
