/**
 * What the kernel has open through a channel: disks (each open by itself), contents and listings
 * (kept as they were when opened).
 *
 * INVARIANT: an open disk is in the log, if there is one, from before its OPEN is answered until
 * its RELEASE is at work.
 */
import type { DirectoryEntry, Namespace, NodeId, OpenedNode } from '../namespace.js';
import type { HandleLog, OpenRecord } from './handle-log.js';
import type { ForwardedRequest, Word64 } from './messages.js';
import { NO_BACKING, type Passthrough } from './passthrough.js';
import {
  HANDLE_CONTENT,
  HANDLE_DEVICE,
  HANDLE_DIRECTORY,
  HANDLE_KIND,
  HANDLE_SERIALS,
  UNIQUE_RESENT,
} from './protocol.js';

/** Threads whose last open for writing is remembered. */
const RECENT_OPENS = 64;

export interface OpenTableOptions {
  /** Where opens are written down for the next daemon. */
  readonly log?: HandleLog | undefined;
  /** Where files are registered that the kernel reads by itself. */
  readonly passthrough?: Passthrough | undefined;
  /** How many daemons served the mount before: their handles are told from ours by it. */
  readonly generation?: number;
}

type OpenedDevice = Extract<OpenedNode, { kind: 'device' }>;

/** Who asks for an open. */
export type Opener = Pick<ForwardedRequest, 'unique' | 'pid'> & { readonly write: boolean };

/** An open disk as the kernel is told of it. */
export interface OpenDevice {
  readonly handle: Word64;
  /** The number of the file that the kernel reads instead of asking; NO_BACKING: it asks. */
  readonly backing: number;
}

export class OpenTable {
  readonly #namespace: Namespace;
  readonly #log: HandleLog | undefined;
  readonly #passthrough: Passthrough | undefined;
  readonly #generation: number;
  /** By the high half of the handle. */
  readonly #devices = new Map<number, OpenRecord>();
  /**
   * Those that could not be opened again, which stay in the log: the kernel goes on with their
   * numbers, so the daemon after this one must not give them to other disks either.
   */
  readonly #lost = new Map<number, OpenRecord>();
  /** Opens of the daemon before this one, by the number of their request. */
  readonly #inherited = new Map<string, OpenRecord>();
  readonly #contents = new Map<string, Buffer>();
  readonly #listings = new Map<string, readonly DirectoryEntry[]>();
  /** Thread id -> node it last opened for writing, oldest first. */
  readonly #recentOpens = new Map<number, NodeId>();
  #lastSerial = 0;
  #lastNumber = 0;

  constructor(namespace: Namespace, options: OpenTableOptions = {}) {
    const { log, passthrough, generation = 0 } = options;
    this.#namespace = namespace;
    this.#log = log;
    this.#passthrough = passthrough;
    this.#generation = generation % HANDLE_SERIALS;
  }

  /**
   * Opens again what the daemon before this one had open. A disk that cannot be opened keeps its
   * handle, which answers errors. @returns what went wrong.
   */
  async restore(): Promise<readonly unknown[]> {
    if (this.#log === undefined) return [];
    const { open, lastSerial } = this.#log.load();
    const failures: unknown[] = [];
    const lost = new Set<number>();
    this.#lastSerial = lastSerial;
    await this.#namespace.beforeReopen?.(open.map(({ node }) => node));
    for (const record of open) {
      // Tried again it might be opened, and closed one day: its number would go to another disk,
      // whose bytes those would get who were lost here.
      if (lost.has(record.handle)) {
        this.#lose(record);
        continue;
      }
      try {
        await this.#namespace.reopen(record.node, record.handle);
        this.#devices.set(highHalf(record), record);
        this.#inherited.set(uniqueKey(record.unique), record);
        this.#passthrough?.inherit(record.node, record.backing);
        if (record.write) this.noteOpen(record.pid, record.node);
      } catch (error) {
        this.#lose(record);
        lost.add(record.handle);
        failures.push(error);
      }
    }
    return failures;
  }

  /** The kernel has it open all the same: opens beside it are answered with its number. */
  #lose(record: OpenRecord): void {
    this.#lost.set(highHalf(record), record);
    this.#passthrough?.inherit(record.node, record.backing);
  }

  /** How many opens of disks were not released yet. */
  get openDisks(): number {
    return this.#devices.size;
  }

  /** What an OPEN that is sent again was answered already, by a daemon that died then. */
  resent(opener: Pick<Opener, 'unique'>): OpenDevice | undefined {
    if ((opener.unique.hi & UNIQUE_RESENT) === 0) return undefined;
    const record = this.#inherited.get(uniqueKey(opener.unique));
    return record === undefined ? undefined : deviceOf(record);
  }

  addDevice(node: NodeId, opened: OpenedDevice, opener: Opener): OpenDevice {
    const { unique, pid, write } = opener;
    const { handle, flatFile } = opened;
    const backing = this.#passthrough?.open(node, flatFile) ?? NO_BACKING;
    const record: OpenRecord = {
      serial: this.#nextSerial(),
      handle,
      node,
      unique: { lo: unique.lo, hi: withoutMark(unique.hi) },
      pid,
      write,
      backing,
    };
    try {
      this.#log?.add(record);
    } catch (error) {
      this.#passthrough?.release(node);
      throw error;
    }
    this.#devices.set(highHalf(record), record);
    return deviceOf(record);
  }

  /**
   * One user of an open file less. A handle that is not known was released before: the request was
   * sent again.
   */
  async release(node: NodeId, handle: Word64): Promise<void> {
    if ((handle.hi & HANDLE_KIND) !== HANDLE_DEVICE) {
      this.#contents.delete(keyOf(handle));
      return;
    }
    const lost = this.#lost.get(handle.hi);
    if (lost?.handle === handle.lo) {
      this.#lost.delete(handle.hi);
      this.#log?.remove(lost.serial);
      this.#passthrough?.release(lost.node);
      return;
    }
    const record = this.#devices.get(handle.hi);
    if (record === undefined || record.handle !== handle.lo) return;
    this.#devices.delete(handle.hi);
    this.#inherited.delete(uniqueKey(record.unique));
    this.#log?.remove(record.serial);
    this.#passthrough?.release(record.node);
    await this.#namespace.release(node, handle.lo);
  }

  /** At unmount the kernel drops the releases that it had queued. Answers what went wrong. */
  async releaseAll(): Promise<readonly unknown[]> {
    const failures: unknown[] = [];
    for (const record of [...this.#devices.values()]) {
      try {
        await this.release(record.node, handleOf(record));
      } catch (error) {
        failures.push(error);
      }
    }
    this.#contents.clear();
    this.#listings.clear();
    return failures;
  }

  addContent(bytes: Buffer): Word64 {
    const handle = this.#nextHandle(HANDLE_CONTENT);
    this.#contents.set(keyOf(handle), bytes);
    return handle;
  }

  content(handle: Word64): Buffer | undefined {
    return this.#contents.get(keyOf(handle));
  }

  replaceContent(handle: Word64, bytes: Buffer): void {
    this.#contents.set(keyOf(handle), bytes);
  }

  addListing(entries: readonly DirectoryEntry[]): Word64 {
    const handle = this.#nextHandle(HANDLE_DIRECTORY);
    this.#listings.set(keyOf(handle), entries);
    return handle;
  }

  listing(handle: Word64): readonly DirectoryEntry[] | undefined {
    return this.#listings.get(keyOf(handle));
  }

  replaceListing(handle: Word64, entries: readonly DirectoryEntry[]): void {
    this.#listings.set(keyOf(handle), entries);
  }

  forgetListing(handle: Word64): void {
    this.#listings.delete(keyOf(handle));
  }

  noteOpen(pid: number, node: NodeId): void {
    this.#recentOpens.delete(pid);
    this.#recentOpens.set(pid, node);
    const oldest = this.#recentOpens.keys().next();
    if (this.#recentOpens.size > RECENT_OPENS && !oldest.done) {
      this.#recentOpens.delete(oldest.value);
    }
  }

  hasJustOpened(pid: number, node: NodeId): boolean {
    const last = this.#recentOpens.get(pid);
    return last !== undefined && last.hi === node.hi && last.lo === node.lo;
  }

  /** One that no open file has: only its low bits go into a handle. */
  #nextSerial(): number {
    const isTaken = (high: number): boolean => this.#devices.has(high) || this.#lost.has(high);
    do {
      this.#lastSerial = (this.#lastSerial + 1) >>> 0;
    } while (isTaken(highHalf({ serial: this.#lastSerial })));
    return this.#lastSerial;
  }

  #nextHandle(kind: number): Word64 {
    this.#lastNumber = (this.#lastNumber + 1) >>> 0;
    return { lo: this.#lastNumber, hi: (kind | (this.#generation << 8)) >>> 0 };
  }
}

function highHalf({ serial }: Pick<OpenRecord, 'serial'>): number {
  return (HANDLE_DEVICE | ((serial % HANDLE_SERIALS) << 8)) >>> 0;
}

function handleOf(record: OpenRecord): Word64 {
  return { lo: record.handle, hi: highHalf(record) };
}

function deviceOf(record: OpenRecord): OpenDevice {
  return { handle: handleOf(record), backing: record.backing };
}

function keyOf({ lo, hi }: Word64): string {
  return `${hi}:${lo}`;
}

function uniqueKey({ lo, hi }: Word64): string {
  return `${withoutMark(hi)}:${lo}`;
}

function withoutMark(uniqueHi: number): number {
  return (uniqueHi & ~UNIQUE_RESENT) >>> 0;
}
