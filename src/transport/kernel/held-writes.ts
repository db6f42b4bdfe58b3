/**
 * Writes that wait for room in the store: taken from the kernel, not answered yet. An I/O thread
 * that was refused hands the request over and goes on; the main thread tries again when told that
 * there may be room. They are outside all gates and locks meanwhile.
 *
 * If the process dies they are asked for again by the next one, as all that is unanswered.
 */

import { constants } from 'node:os';
import { setImmediate as turn } from 'node:timers/promises';
import { DiskError } from '../../common/errors.js';
import type { BlockDevice } from '../../engine/block-device.js';
import { errnoOf } from '../errno.js';
import { writeDevice } from '../operations.js';
import type { HeldWrites, TransportEvent } from '../transport.js';
import { isDying } from './callers.js';
import type { Reply } from './handlers.js';
import { giveHold, type HoldWords } from './hold-budget.js';
import type { HeldWrite } from './messages.js';
import { WRITE_OUT_BYTES } from './protocol.js';

/** The first and the last block of a write may be touched in part. */
const EDGE_BYTES = 2 * 4096;

export interface WriteHoldParts {
  readonly words: HoldWords;
  readonly deviceOf: (handle: number) => BlockDevice;
  readonly reply: Reply;
  readonly onEvent: (level: TransportEvent['level'], message: string) => void;
}

export class WriteHold implements HeldWrites {
  readonly #parts: WriteHoldParts;
  readonly #held: HeldWrite[] = [];
  #bytes = 0;
  /** Of those that waited since the first of them began to. */
  #seen = 0;
  #isRefusing = false;

  constructor(parts: WriteHoldParts) {
    this.#parts = parts;
  }

  get writes(): number {
    return this.#held.length;
  }

  get bytes(): number {
    return this.#bytes;
  }

  add(write: HeldWrite): void {
    this.#held.push(write);
    this.#bytes += write.data.length;
    this.#seen += 1;
    if (this.#isRefusing) {
      this.#answer(write, constants.errno.ENOSPC);
      return;
    }
    if (this.#seen > 1) return;
    this.#parts.onEvent('warning', "writes wait for room in the store's file system");
  }

  /** Every one that waits gets ENOSPC, and so do those to come: the mount goes away. */
  refuseAll(): void {
    this.#isRefusing = true;
    for (const write of [...this.#held]) this.#answer(write, constants.errno.ENOSPC);
  }

  async retry(left: () => number): Promise<void> {
    this.#letDyingGo();
    for (;;) {
      const [first] = this.#held;
      if (first === undefined || left() < first.data.length + EDGE_BYTES) return;
      if (!(await this.#perform(first))) return;
      // Requests that were forwarded get their turn, and so does the control socket.
      await turn();
    }
  }

  /** Nobody else can end a process that waits for us: to the kernel its request is under way. */
  #letDyingGo(): void {
    const known = new Map<number, boolean>();
    for (const write of [...this.#held]) {
      const dying = known.get(write.pid) ?? isDying(write.pid);
      known.set(write.pid, dying);
      if (dying) this.#answer(write, constants.errno.EINTR);
    }
  }

  /** @returns whether it was answered; there is still no room otherwise. */
  async #perform(write: HeldWrite): Promise<boolean> {
    const { handle, data, offset, flush } = write;
    try {
      const device = this.#parts.deviceOf(handle);
      const count = writeDevice(device, Buffer.from(data.buffer), 0, offset, data.length);
      if (flush) await device.flushAsync?.();
      const body = Buffer.alloc(WRITE_OUT_BYTES);
      body.writeUInt32LE(count, 0);
      this.#answer(write, 0, body);
    } catch (error) {
      if (error instanceof DiskError && error.passing) return false;
      this.#parts.onEvent('warning', `a write that waited failed: ${String(error)}`);
      this.#answer(write, errnoOf(error));
    }
    return true;
  }

  #answer(write: HeldWrite, errno: number, body?: Buffer): void {
    const at = this.#held.indexOf(write);
    // Refused while it was being written: that is its one answer.
    if (at < 0) return;
    this.#held.splice(at, 1);
    this.#bytes -= write.data.length;
    giveHold(this.#parts.words, write.data.length);
    try {
      this.#parts.reply(write.unique, errno, body);
    } catch (error) {
      this.#parts.onEvent('error', `cannot answer a write that waited: ${String(error)}`);
    }
    if (this.#held.length > 0) return;
    this.#parts.onEvent('info', `no write waits any more, after ${this.#seen} did`);
    this.#seen = 0;
  }
}
