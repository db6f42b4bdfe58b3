/**
 * The contract of a transport: it shows a namespace as files under a mountpoint until told to
 * stop.
 */
import type { NodeId } from './namespace.js';

/** Somebody because of whom the mount cannot go away. */
export interface Holder {
  /** 0 where no process is behind it (a loop device, a mount). */
  readonly pid: number;
  /** Program name, device or mountpoint. */
  readonly name: string;
  readonly how: 'open file' | 'working directory' | 'program' | 'mapping' | 'loop device' | 'mount';
  /** Path of what is held, under the mountpoint where one is known. */
  readonly path: string;
}

/** Why a transport ended: asked to; unmounted from outside; broken. */
export type TransportEnd = 'stopped' | 'unmounted' | 'failed';

/** What a transport tells about itself, for the log. */
export interface TransportEvent {
  readonly level: 'info' | 'warning' | 'error';
  readonly message: string;
  readonly stack?: string;
}

export interface StopOptions {
  /** Take the mount away although it is in use: whoever holds it gets I/O errors. */
  readonly force?: boolean;
}

/** Writes that wait for room in the store instead of failing. */
export interface HeldWrites {
  readonly writes: number;
  readonly bytes: number;
  /**
   * Tries those again that fit into what is `left` (bytes, asked before each), in the order in
   * which they came, and lets go whose caller is being killed.
   */
  retry(left: () => number): Promise<void>;
}

export interface Transport {
  readonly kind: 'kernel' | 'fuse-native';
  /** Absolute, without symbolic links once started. */
  readonly mountpoint: string;
  /** Absent where a write cannot be held. */
  readonly held?: HeldWrites | undefined;
  /**
   * Mounts; resolves when requests are being answered. Clears a dead mount of ours at the same
   * place first.
   * @throws DiskError `busy`, `not-permitted`, `not-supported`, `unreachable`.
   */
  start(): Promise<void>;
  /**
   * Resolves once, when the mount is gone and no request is being served any more. Never
   * rejects.
   */
  readonly ended: Promise<TransportEnd>;
  /**
   * The node's bytes or attributes changed below the kernel: its caches are dropped when this
   * resolves.
   */
  invalidate(node: NodeId): Promise<void>;
  /** A name of a directory came, went or now means another node. */
  invalidateEntry(parent: NodeId, name: string): Promise<void>;
  /**
   * Unmounts, which writes back what the kernel still holds, and waits for the last request;
   * `ended` stays open where another mount namespace has a copy of the mount.
   * @throws DiskError `busy` naming the holders (the mount then stays as it was), or when the
   *   mount is gone but files on it are still open: a process whose I/O threads wait for their
   *   requests cannot exit by `process.exit`, only by a signal.
   */
  stop(options?: StopOptions): Promise<void>;
  /**
   * Has threads that wait for requests look soon at what was left for them; absent where none
   * waits.
   */
  wakeThreads?(): void;
  /** Who uses the mount now. */
  holders(): Promise<readonly Holder[]>;
}
