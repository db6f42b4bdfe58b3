/**
 * What a supervisor and its daemon say to each other, and which descriptors pass between them.
 *
 * The two may be of different versions: `daemon restart` starts the new program under the
 * supervisor that runs already. So this is small, and words that are not known are passed over.
 */
import type { DiskErrorJson } from '../common/errors.js';
import type { Negotiated } from '../transport/kernel/channel.js';
import type { Mount } from '../transport/mount.js';

/** Descriptors of the daemon: lines of JSON, both ways. */
export const LINK_FD = 3;
/** A socket on which it sends descriptors that are to outlive it. */
export const DESCRIPTORS_FD = 4;
/** What was sent by daemons before it. */
export const FIRST_KEPT_FD = 5;

/** What outlives a daemon: the store's lock (a file and the folder), and the mount's. */
export const KEPT = ['lock', 'fuse', 'handles', 'suspects', 'folder'] as const;
export type KeptName = (typeof KEPT)[number];

/** Of a file in memory, as /proc shows it. */
export function keptFileName(name: KeptName): string {
  return `layerdisk-${name}`;
}

/** A mount without its descriptor, which has another number in each process. */
export type MountFacts = Omit<Mount, 'fd'>;

/** The first line to a daemon: from here on it is the one that serves. */
export interface Handover {
  readonly supervisorPid: number;
  /** How many daemons served this mount before. */
  readonly generation: number;
  /** Numbers of inherited descriptors. */
  readonly kept: Readonly<Partial<Record<KeptName, number>>>;
  readonly mount?: MountFacts;
  readonly negotiated?: Negotiated;
}

/** Later lines to a daemon. */
export interface SupervisorWord {
  /** End, as after a signal. */
  readonly stop?: true;
  /** The next daemon, which was asked for by `renew`, is loaded; or why it cannot be. */
  readonly renewed?: { readonly problem?: string };
}

/** In which way a daemon ended that ended in order. */
export type OrderlyEnd = 'stopped' | 'unmounted' | 'failed' | 'restart';

/** Lines from a daemon. */
export interface DaemonWord {
  /** Its program is loaded: it waits for the handover. */
  readonly warm?: true;
  /** A descriptor was sent, which is to be kept under this name. */
  readonly keep?: KeptName;
  readonly mount?: MountFacts;
  readonly negotiated?: Negotiated;
  readonly ready?: true;
  /** It does not start. */
  readonly error?: DiskErrorJson;
  /** Load the program anew, as it is now, for the daemon after this one. */
  readonly renew?: true;
  /** It found a fault of its own and ends at once. */
  readonly crash?: string;
  readonly ended?: OrderlyEnd;
}
