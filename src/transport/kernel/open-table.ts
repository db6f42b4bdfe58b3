/**
 * What the kernel has open through a channel: disks (counted), contents and listings (kept as
 * they were when opened).
 */
import type { DirectoryEntry, Namespace, NodeId } from '../namespace.js';
import type { Word64 } from './messages.js';
import { HANDLE_DEVICE } from './protocol.js';

/** Threads whose last open for writing is remembered. */
const RECENT_OPENS = 64;

interface OpenDevice {
  readonly node: NodeId;
  readonly handle: number;
  count: number;
}

export class OpenTable {
  readonly #namespace: Namespace;
  readonly #devices = new Map<string, OpenDevice>();
  readonly #contents = new Map<number, Buffer>();
  readonly #listings = new Map<number, readonly DirectoryEntry[]>();
  /** Thread id -> node it last opened for writing, oldest first. */
  readonly #recentOpens = new Map<number, NodeId>();
  #lastNumber = 0;

  constructor(namespace: Namespace) {
    this.#namespace = namespace;
  }

  addDevice(node: NodeId, handle: number): void {
    const key = deviceKey(node, handle);
    const device = this.#devices.get(key) ?? { node, handle, count: 0 };
    device.count += 1;
    this.#devices.set(key, device);
  }

  /**
   * One user of an open file less. A handle that this process never gave is passed on: another
   * daemon gave it.
   */
  async release(node: NodeId, handle: Word64): Promise<void> {
    if (handle.hi !== HANDLE_DEVICE) {
      this.#contents.delete(handle.lo);
      return;
    }
    const key = deviceKey(node, handle.lo);
    const device = this.#devices.get(key);
    if (device !== undefined) {
      device.count -= 1;
      if (device.count === 0) this.#devices.delete(key);
    }
    await this.#namespace.release(node, handle.lo);
  }

  /** At unmount the kernel drops the releases that it had queued. Answers what went wrong. */
  async releaseAll(): Promise<readonly unknown[]> {
    const failures: unknown[] = [];
    for (const device of this.#devices.values()) {
      for (; device.count > 0; device.count -= 1) {
        try {
          await this.#namespace.release(device.node, device.handle);
        } catch (error) {
          failures.push(error);
        }
      }
    }
    this.#devices.clear();
    this.#contents.clear();
    this.#listings.clear();
    return failures;
  }

  addContent(bytes: Buffer): number {
    const number = this.#nextNumber();
    this.#contents.set(number, bytes);
    return number;
  }

  content(number: number): Buffer | undefined {
    return this.#contents.get(number);
  }

  replaceContent(number: number, bytes: Buffer): void {
    this.#contents.set(number, bytes);
  }

  addListing(entries: readonly DirectoryEntry[]): number {
    const number = this.#nextNumber();
    this.#listings.set(number, entries);
    return number;
  }

  listing(handle: Word64): readonly DirectoryEntry[] | undefined {
    return this.#listings.get(handle.lo);
  }

  replaceListing(handle: Word64, entries: readonly DirectoryEntry[]): void {
    this.#listings.set(handle.lo, entries);
  }

  forgetListing(handle: Word64): void {
    this.#listings.delete(handle.lo);
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

  #nextNumber(): number {
    this.#lastNumber = (this.#lastNumber + 1) >>> 0;
    return this.#lastNumber;
  }
}

function deviceKey(node: NodeId, handle: number): string {
  return `${node.hi}:${node.lo}:${handle}`;
}
