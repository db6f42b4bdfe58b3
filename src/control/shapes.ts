/** What requests and answers on the control socket are made of: hardware, disks, VMs, findings. */

export type NicMode = 'nat' | 'bridged' | 'host-only' | 'internal' | 'none';
export type Allocation = 'dynamic' | 'static';
/** See the table in `vm/disk-kinds.ts`. */
export type DiskKind = 'normal' | 'write-through' | 'immutable' | 'read-only';
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
  readonly kind?: DiskKind;
}

/** A disk that is to be of another kind; without a name: the only one, or `disk0`. */
export interface DiskKindChange {
  readonly disk?: string;
  readonly kind: DiskKind;
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
  /** The snapshot inside the image that the disk stands on; absent for its present state. */
  readonly snapshot?: string;
  readonly virtualSize: number;
}

export interface DiskView {
  readonly name: string;
  readonly size: number;
  readonly allocation: Allocation;
  readonly kind: DiskKind;
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
  /** Bytes that the saved memory and devices of the guest take; absent without. */
  readonly memoryState?: number;
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
  /** What the next run goes on with. */
  readonly resume?: WaitingMemory;
  /** MAC addresses that other VMs have, too: a clone may keep them. */
  readonly sharedMacs?: readonly SharedMac[];
}

export interface SharedMac {
  readonly mac: string;
  /** The other VMs. */
  readonly vms: readonly string[];
}

/** Memory of a guest that is waiting in the store for the next run. */
export interface WaitingMemory {
  /** `VM@SNAPSHOT` that it came back with. */
  readonly from: string;
  /** Bytes of its file. */
  readonly size: number;
}

/** The same with all that QEMU needs to read it. */
export interface SavedMemoryView extends WaitingMemory {
  /** Absolute. */
  readonly path: string;
  /** CRC-32C of the file, as eight hexadecimal digits. */
  readonly checksum: string;
  /** What QEMU must be, and be given, to go on with it. */
  readonly setup: {
    readonly version: string;
    readonly machine: string;
    readonly accelerator: 'kvm' | 'tcg';
    readonly processor?: string;
    readonly arguments: readonly string[];
    readonly folder: string;
  };
}

/** What QEMU is started from. */
export interface RunPlan {
  /** The hardware at an instant when no operation changes the VM. */
  readonly vm: VmView;
  /** Folder for the guest's sockets, lock and log; made if it was not there. */
  readonly folder: string;
  readonly storeId: string;
  /** What the guest goes on with: when QEMU has read it, `run.resumed`. Absent: a cold start. */
  readonly memory?: SavedMemoryView;
}

export interface ImportView extends VmView {
  /** What of a machine was not taken over as it was, one line each. */
  readonly warnings?: readonly string[];
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
  /** Bytes that the saved memory of a guest takes; absent without. */
  readonly memoryState?: number;
  /** Names of VMs that are linked clones of this snapshot. */
  readonly clones?: readonly string[];
  readonly children: readonly TreeNode[];
}

/**
 * `low`: below the warning mark. `full`: at the reserve, so that writes that need new space are
 * refused.
 */
export type SpaceState = 'plenty' | 'low' | 'full';

/** Room in the store's file system. Bytes. */
export interface SpaceView {
  readonly state: SpaceState;
  readonly totalBytes: number;
  readonly freeBytes: number;
  /** Kept for what must go on when the store is full; 0: nothing is. */
  readonly reserveBytes: number;
  /** Where the warning begins. */
  readonly warnBelowBytes: number;
  /**
   * Writes that there was no room for since the daemon started, above the reserve; those that
   * waited then count, too.
   */
  readonly refusedWrites: number;
  /** Whether such a write fails, or waits until there is room. */
  readonly onFull: 'report' | 'pause';
  /** Writes that wait now, and their bytes. */
  readonly waitingWrites: number;
  readonly waitingBytes: number;
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
  /** Absent: a daemon of an older version. */
  readonly space?: SpaceView;
}

export interface AttachView {
  readonly device: string;
  readonly path: string;
  readonly readOnly: boolean;
  /** It was so before. */
  readonly already?: true;
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
  /** What the store's file system has in use, by whomever, and what is free there. */
  readonly storeBytes: number;
  readonly storeFreeBytes: number;
  /** Absent: a daemon of an older version. */
  readonly space?: SpaceView;
  readonly io: IoStats;
  readonly vms?: readonly { readonly name: string; readonly disk: string; readonly io: IoStats }[];
}

export interface GcView {
  readonly dryRun: boolean;
  readonly files: readonly string[];
  readonly bytes: number;
}

export interface ExportView {
  /** The main file. */
  readonly path: string;
  readonly format: FormatName;
  readonly subformat: string;
  /** Bytes of the host that all files take. */
  readonly storedSize: number;
  readonly files: readonly string[];
}

/** Something that `check` found. */
export interface FindingView {
  readonly kind: 'damage' | 'leak';
  readonly part: 'manifest' | 'header' | 'tuples' | 'data' | 'sums' | 'base' | 'memory' | 'file';
  readonly message: string;
  /** Relative to the store. */
  readonly file: string;
  /** Bytes of that file. */
  readonly offset?: number;
  readonly length?: number;
  readonly vm?: string;
  readonly disk?: string;
  /** Id of the delta. */
  readonly delta?: string;
  /** First 4 KiB block of the disk that is hurt, and how many. */
  readonly block?: number;
  readonly blocks?: number;
  /** `VM/DISK` and `VM@SNAPSHOT/DISK`: at most 100, and how many more. */
  readonly seenBy: readonly string[];
  readonly seenByMore: number;
  readonly repaired: boolean;
  /** What to do. */
  readonly remedy: string;
}

export interface CheckView {
  readonly vms: number;
  readonly deltas: number;
  readonly bytesRead: number;
  /** Sealed deltas that have no checksums yet: their data was not verified. */
  readonly notSummed: number;
  /** At most 500. */
  readonly findings: readonly FindingView[];
  /** Findings that are only counted. */
  readonly more: number;
  /** Damage and leaks that are left. */
  readonly damaged: number;
  readonly leaks: number;
  readonly repaired: number;
}

export interface CompactView {
  readonly vm: string;
  /** Bytes of the host that its files took, and take now: those of its snapshots, too. */
  readonly storedBefore: number;
  readonly storedSize: number;
  readonly bytesRead: number;
  /** What stays as it is, and why: one line each. */
  readonly left: readonly string[];
}

export interface OvaView {
  readonly path: string;
  /** Bytes of the host that it takes. */
  readonly storedSize: number;
}

/** Kinds of files by which other programs run on the exposed disks of a VM. */
export type MachineFileKind = 'libvirt-xml' | 'vbox' | 'vmx' | 'vmdk';

export interface MachineFilesView {
  /** The main file first; none when the text was asked for. */
  readonly files: readonly string[];
  readonly text?: string;
  /** What its user has to know or to do first, one line each. */
  readonly notes: readonly string[];
}
