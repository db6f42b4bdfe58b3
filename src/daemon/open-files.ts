/**
 * Which disk files of the mount are open, as the kernel says it, and keeping new opens of a VM's
 * out for a moment: lists of open files, as /proc has them, miss who is just about to have one.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { invariant } from '../common/assert.js';
import type { NodeId } from '../transport/namespace.js';
import type { HeldOpens } from '../vm/hooks.js';

/** The kernel tells of a close a moment after it: so long it is waited for, milliseconds. */
const CLOSING_MS = 1000;
const POLL_MS = 5;

export class OpenFiles {
  readonly #opens = new Map<string, number>();
  /** Opened since nobody had them open by somebody for whom the kernel may cache. */
  readonly #cached = new Set<string>();
  /**
   * Open when an earlier daemon died, and not to be opened again: when they are closed is unknown.
   */
  readonly #lost = new Set<string>();
  /** Open when this daemon took over from an earlier one. */
  readonly #inherited = new Set<string>();
  /** By the number of the VM; each resolves when it is over. */
  readonly #holds = new Map<number, Promise<void>>();

  /**
   * Counts an open that begins; waits as long as the VM is held. `leave` follows, however it ends.
   * @param direct reads and writes of this open pass the kernel's cache by.
   */
  async enter(node: NodeId, direct = false): Promise<void> {
    for (let hold = this.#holds.get(node.hi); hold !== undefined; ) {
      await hold;
      hold = this.#holds.get(node.hi);
    }
    this.#add(node, direct);
  }

  /** Counts one that the daemon before this one let in. */
  inherit(node: NodeId): void {
    this.#inherited.add(keyOf(node));
    this.#add(node, false);
  }

  /** Notes one that the daemon before this one let in and that cannot go on. */
  lose(node: NodeId): void {
    this.#inherited.add(keyOf(node));
    this.#lost.add(keyOf(node));
  }

  /** Whether it was open already when this daemon took over, closed since or not. */
  wasInherited(node: NodeId): boolean {
    return this.#inherited.has(keyOf(node));
  }

  /**
   * Whether somebody may have one of these files of a VM open. False is certain, for mappings and
   * loop devices as well: each keeps an open file.
   */
  mayBeOpen(vm: number, nodes: readonly number[]): boolean {
    return nodes.some((lo) => {
      const node = { hi: vm, lo };
      return this.#count(node) > 0 || this.#lost.has(keyOf(node));
    });
  }

  /**
   * Whether it is open, and by nobody who reads or writes it through the kernel's cache. True means
   * that what is cached of it serves nobody but mappings.
   */
  isOnlyDirect(node: NodeId): boolean {
    return this.#count(node) > 0 && !this.#cached.has(keyOf(node));
  }

  /** One open less. */
  leave(node: NodeId): void {
    const key = keyOf(node);
    const left = this.#count(node) - 1;
    invariant(left >= 0, 'what is closed was open');
    if (left > 0) {
      this.#opens.set(key, left);
    } else {
      this.#opens.delete(key);
      this.#cached.delete(key);
    }
  }

  /** @param nodes of the VM, whose opens are counted. */
  hold(vm: number, nodes: readonly number[]): HeldOpens {
    invariant(!this.#holds.has(vm), `VM ${vm} is held already`);
    let end: () => void = () => undefined;
    const over = new Promise<void>((resolve) => {
      end = resolve;
    });
    this.#holds.set(vm, over);
    return {
      stillOpen: () => this.#settled(vm, nodes),
      release: () => {
        this.#holds.delete(vm);
        end();
      },
    };
  }

  async #settled(vm: number, nodes: readonly number[]): Promise<number> {
    const end = performance.now() + CLOSING_MS;
    for (;;) {
      const open = nodes.reduce((sum, lo) => sum + this.#count({ hi: vm, lo }), 0);
      if (open === 0 || performance.now() > end) return open;
      await delay(POLL_MS);
    }
  }

  #add(node: NodeId, direct: boolean): void {
    this.#opens.set(keyOf(node), this.#count(node) + 1);
    if (!direct) this.#cached.add(keyOf(node));
  }

  #count(node: NodeId): number {
    return this.#opens.get(keyOf(node)) ?? 0;
  }
}

function keyOf({ hi, lo }: NodeId): string {
  return `${hi}:${lo}`;
}
