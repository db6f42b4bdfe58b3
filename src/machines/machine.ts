/** What a machine file says, in words that all hypervisors share. Plain data; sizes in bytes. */
import type { FileWindow } from '../storage/host-file.js';

export type NicMode = 'nat' | 'bridged' | 'host-only' | 'internal' | 'none';

/** Told of a machine that starts by EFI: its disks have no boot sector for a BIOS. */
export const EFI_OMITTED =
  'its EFI firmware is not taken over: layerdisk run starts a BIOS, unless told otherwise ' +
  'as in -- -bios /usr/share/ovmf/OVMF.fd';

export interface MachineNic {
  readonly mode: NicMode;
  /** As written in the file; any text. */
  readonly network?: string;
  /** As `08:00:27:01:02:03`, in lower case. */
  readonly mac?: string;
}

/** What is not said is absent. */
export interface MachineHardware {
  readonly vcpus?: number;
  readonly memory?: number;
  readonly nics: readonly MachineNic[];
}

/** Disks, as a file names them (`DiskDraft`) or as they were found on the host (`MachineDisk`). */
export interface MachineState<D> {
  readonly hardware: MachineHardware;
  readonly disks: readonly D[];
}

export interface MachineSnapshot<D> extends MachineState<D> {
  /** Unique in the machine. */
  readonly id: string;
  /** Any text, perhaps empty. */
  readonly name: string;
  readonly description: string;
  /** Absent where the file does not say it in a way that can be read. */
  readonly created?: Date;
  /** The id of the snapshot that it was taken on top of. */
  readonly parent: string | null;
}

/**
 * A machine with its snapshots as a tree.
 *
 * INVARIANT: every parent is the id of another snapshot, and there is no cycle.
 */
export interface Machine<D> extends MachineState<D> {
  /** Any text, perhaps empty. */
  readonly name: string;
  readonly snapshots: readonly MachineSnapshot<D>[];
  /** The id of the snapshot that the present state stands on. */
  readonly current: string | null;
  /** What is not taken over, one line each. */
  readonly warnings: readonly string[];
}

/** A file by the names to try, in order. */
export interface FileDraft {
  readonly names: readonly string[];
  /** A format's name, or `auto`. */
  readonly format: string;
}

/** Normal where it is absent. */
export type MachineDiskKind = 'write-through' | 'immutable' | 'read-only';

export interface DiskDraft {
  /** How the hypervisor names the place that it is attached to. */
  readonly slot: string;
  /** Top first, and all that is known to lie below; none for a disk that is empty. */
  readonly files: readonly FileDraft[];
  /** Of an empty disk. */
  readonly size?: number;
  readonly kind?: MachineDiskKind;
}

export interface MachineImage {
  /** Absolute, free of links. */
  readonly path: string;
  readonly format: string;
  /** What lies below it, nearest first, where the machine file says so. */
  readonly parents: readonly string[];
  /** The format of each of these. */
  readonly parentFormats?: readonly string[];
  /** The part of the file that it is (in an OVA). */
  readonly window?: FileWindow;
}

export interface MachineDisk {
  readonly slot: string;
  /** Absent: an empty disk of `size` bytes. */
  readonly image?: MachineImage;
  readonly size?: number;
  readonly kind?: MachineDiskKind;
}

/** A digest that a file is said to have. */
export interface StatedDigest {
  /** As the manifest names it. */
  readonly name: string;
  readonly path: string;
  readonly window?: FileWindow;
  readonly algorithm: 'sha1' | 'sha256' | 'sha512';
  /** In lower case. */
  readonly hex: string;
}

export interface MachineDescription extends Machine<MachineDisk> {
  /** The machine file's path. */
  readonly path: string;
  /** The folder of the machine file, in which further files of its disks may lie. */
  readonly folder: string;
  /** To be checked before anything is made of it: `verifyDigests`. */
  readonly digests: readonly StatedDigest[];
}

/** Most snapshots that are taken over from one file. */
export const MAX_SNAPSHOTS = 1000;
