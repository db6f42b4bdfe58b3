/**
 * What the VM side needs of the parts above it, which it does not know: transport and loop devices.
 */

import type { Work } from './context.js';
import type { GuestSetup, Hardware } from './store/manifest.js';
import type { NewMemoryFile } from './store/memory-files.js';

/** Which exposed files an operation is about to change under their users. */
export type Exposed =
  /** The read-write files. */
  | { readonly vm: string; readonly part: 'heads' }
  | { readonly vm: string; readonly part: 'snapshot'; readonly snapshot: string }
  | { readonly vm: string; readonly part: 'all' };

/** Someone who has an exposed file open. */
export interface Holder {
  /** In words, for an error: `/dev/loop3, mounted at /mnt/web`, `process 123 (qemu-system-x86)`. */
  readonly what: string;
  /** The command that makes it let go, where there is one. */
  readonly remedy?: string;
  /** A loop device knows its file by path: renaming is for these like removing. */
  readonly byPath: boolean;
}

/** A guest's memory that is to be saved. */
export interface MemoryRequest {
  /** Where to; a file that is whole is renamed from `part` to `path`. */
  readonly file: NewMemoryFile;
  /** What the VM is configured as: a guest that runs with other hardware is refused. */
  readonly hardware: Hardware;
  readonly disks: readonly string[];
  readonly work: Work;
}

/** Disks with nothing above them that is not in them. */
export interface Flushed {
  /** `consistent`, or `crash-consistent: <why>`. */
  readonly consistency: string;
  /** What the guest is whose memory was saved. */
  readonly guest?: GuestSetup;
  /** Lets go on what stands still above them. Must be called, and soon. */
  release(): Promise<void>;
}

/** A name that is gone from a folder of a VM, for now or to come back for something else. */
export interface GoneName {
  readonly vmNumber: number;
  /** The folder's node. */
  readonly folder: number;
  readonly name: string;
}

/** A VM whose files nobody opens for a moment: whoever tries waits, and sees what is there then. */
export interface HeldOpens {
  /**
   * Resolves when nobody has the files open, or it is clear that somebody stays: how many opens
   * stand. What was closed is known to us only a moment later.
   */
  stillOpen(): Promise<number>;
  /** Must be called, and soon. */
  release(): void;
}

export interface VmHooks {
  /**
   * Brings what the host has cached above a VM's disks down to them, before a snapshot, and stops
   * mounted file systems until `release`.
   * @param memory the guest, which must run, is paused for it, and so is until `release`.
   * @throws DiskError `not-found` without a guest, `exists` for one with other hardware, `failed`
   * when its memory can't be saved; it goes on then.
   */
  flushExposed(vm: string, memory?: MemoryRequest): Promise<Flushed>;
  /**
   * The contents of these nodes changed below the kernel's caches. Resolves when none is stale any
   * more.
   */
  contentChanged(vmNumber: number, nodes: readonly number[]): Promise<void>;
  holders(exposed: Exposed): Promise<readonly Holder[]>;
  /** From now on whoever opens a file of the VM waits. One at a time for a VM. */
  holdOpens(vmNumber: number, nodes: readonly number[]): HeldOpens;
  /**
   * Names came or went: a VM was made, renamed, deleted, or its disks or snapshots changed.
   * @param gone of its files and folders.
   */
  namesChanged(vm: string, gone?: readonly GoneName[]): void;
}
