/**
 * What the writers of machine files are given: a machine whose disks are the exposed raw files, so
 * that another program runs on the same bytes.
 */
import type { NicMode } from './machine.js';

export interface OutputDisk {
  readonly name: string;
  /** The exposed raw file, absolute. */
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  readonly allocation: 'dynamic' | 'static';
  /** What the guest sees; at most 20 characters. */
  readonly serial: string;
  /** The same each time that the same disk is written. */
  readonly uuid: string;
}

export interface OutputNic {
  readonly mode: NicMode;
  /** Lower case, colons. */
  readonly mac: string;
  readonly network?: string;
  /** The host's bridge that it is connected to; only of modes `bridged` and `host-only`. */
  readonly bridge?: string;
}

export interface OutputMachine {
  readonly name: string;
  /** A UUID. */
  readonly id: string;
  readonly vcpus: number;
  /** Bytes. */
  readonly memory: number;
  readonly disks: readonly OutputDisk[];
  readonly nics: readonly OutputNic[];
}

/** A machine file's text. */
export interface WrittenMachine {
  readonly text: string;
  /** What its user has to know or to do first, one line each. */
  readonly notes: readonly string[];
}

/** The network of NICs that are `internal` and name none. */
export const DEFAULT_NETWORK = 'default';

/** Memory in units that the file can say, never less than asked for. */
export function memoryUnits(bytes: number, unitBytes: number): number {
  return Math.max(1, Math.ceil(bytes / unitBytes));
}

/** The note about a memory that was rounded up to `units` of `unitBytes`; none where it fits. */
export function memoryNotes(bytes: number, units: number, unitBytes: number): string[] {
  const given = units * unitBytes;
  if (given === bytes) return [];
  return [`its memory is rounded up from ${bytes} to ${given} bytes`];
}
