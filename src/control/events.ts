/**
 * What `events` tells: the name of each kind of event, what it means, and what may be in it. Names
 * and keys stay; more of both may come.
 */
import type { SpaceState } from './shapes.js';

/** Name -> what happened, as the help says it. */
export const EVENTS = {
  listening: 'the daemon "pid" tells what happens from here on',
  lost: '"lost" events were left out because nobody read them',
  'vm.created': 'a VM was made',
  'vm.imported': 'a VM was made of images or of a machine',
  'vm.cloned': 'a VM was made as a clone ("mode") of "source"',
  'vm.renamed': 'a VM is called "name" now',
  'vm.deleted': 'a VM is gone',
  'vm.changed': 'the hardware or the kinds of disks ("changed") were set',
  'vm.compacted': 'a VM gave back space: it takes "bytes" now',
  'vm.damaged': 'a VM cannot be used: "problem"',
  'base.accepted': 'changed base images ("files") were accepted',
  'snapshot.taken': 'a snapshot was taken',
  'snapshot.deleted': 'a snapshot is gone',
  'snapshot.renamed': 'a snapshot is called "name" now',
  'snapshot.restored': 'a VM went back to a snapshot',
  'export.ended': 'an export to "path" is "done", "failed" or "cancelled" ("outcome")',
  'disk.added': 'a VM has one more disk',
  'disk.removed': 'a VM is without a disk that it had',
  'disk.resized': 'a disk has "bytes" now',
  'disk.attached': 'a disk became the loop device "device"',
  'disk.detached': 'a disk is the loop device "device" no more',
  'disk.mounted': 'a file system of a disk is seen in "directory"',
  'disk.unmounted': 'it is seen there no more',
  'guest.started': 'a VM runs as the process "pid"',
  'guest.stopped': 'it runs no more',
  'garbage.removed': '"gc" removed "removed" files, and gave back "bytes" of space',
  'space.low': 'the store runs full: make room',
  'space.full': 'the store is full: writes that need new space are refused or wait',
  'space.plenty': 'the store has room again',
  'damage.found': 'a read or a check found damage: layerdisk check --deep',
  'daemon.restarting': 'the next daemon takes over',
  'daemon.stopping': 'the daemon ends',
} as const satisfies Readonly<Record<string, string>>;

export type EventName = keyof typeof EVENTS;

export interface EventView {
  /** ISO 8601. */
  readonly time: string;
  readonly event: EventName;
  /** The same for people, in one line. */
  readonly text: string;
  readonly vm?: string;
  readonly snapshot?: string;
  readonly disk?: string;
  /** It was so when the listening began, and is told for that. */
  readonly standing?: true;
  /** The new one of what was renamed. */
  readonly name?: string;
  /** `VM` or `VM@SNAPSHOT` that was cloned. */
  readonly source?: string;
  readonly mode?: 'linked' | 'full';
  /** Parameters of `set`. */
  readonly changed?: readonly string[];
  readonly problem?: string;
  readonly files?: readonly string[];
  /** See `SnapshotView`. */
  readonly consistency?: string;
  /** Bytes of saved memory. */
  readonly memoryState?: number;
  readonly path?: string;
  /** Of an export: an image's, `ova`, or the kind of a machine file. */
  readonly format?: string;
  readonly outcome?: 'done' | 'failed' | 'cancelled';
  /** Size of a disk; what the files of a VM take; space that was given back. */
  readonly bytes?: number;
  /** Files that are gone. */
  readonly removed?: number;
  readonly device?: string;
  readonly directory?: string;
  readonly readOnly?: boolean;
  readonly pid?: number;
  readonly state?: SpaceState;
  readonly freeBytes?: number;
  readonly totalBytes?: number;
  /** Findings of a check. */
  readonly damaged?: number;
  readonly lost?: number;
}

/** What its publisher says: the time is added. */
export type NewEvent = Omit<EventView, 'time'>;

/** How a listening ends that is not cancelled: after `restart` another daemon goes on. */
export type EventsEnd = 'stopped' | 'restart';

/** Notification `event` for a request `events` under way; `id` is the request's. */
export interface EventNotice {
  readonly id: number | string;
  readonly event: EventView;
}
