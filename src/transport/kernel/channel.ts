/**
 * The kernel channel: the transport that speaks the /dev/fuse protocol itself. I/O threads take
 * requests and serve the data; this, on the main thread, mounts, answers what the threads
 * forward, invalidates caches and unmounts.
 */
import { closeSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { DiskError } from '../../common/errors.js';
import type { BlockDevice } from '../../engine/block-device.js';
import { HolderSearch, inUse } from '../holders.js';
import { type Mount, mountKernelChannel, unmountKernelChannel, whereItIs } from '../mount.js';
import type { Namespace, NodeId } from '../namespace.js';
import type { Holder, StopOptions, Transport, TransportEnd, TransportEvent } from '../transport.js';
import type { HandleLog } from './handle-log.js';
import { RequestHandler } from './handlers.js';
import { WriteHold } from './held-writes.js';
import { type HoldWords, makeHoldWords } from './hold-budget.js';
import { IdleThreads } from './idle-threads.js';
import type { ChannelMessage, ReadyMessage, TroubleMessage } from './messages.js';
import { Notifier } from './notify.js';
import { Passthrough } from './passthrough.js';
import { INIT, INIT2, MAX_REQUEST_BYTES } from './protocol.js';
import { writeReply } from './replies.js';
import type { ChannelThreadSetup, ThreadEnd } from './thread.js';

/** Starts I/O threads; given by whoever knows what runs in them. */
export interface IoThreads {
  /**
   * Starts one thread, which must call `serveKernelChannel` with this setup; `receive` gets
   * every message that it forwards, in order. `ended` resolves with what the loop answered, or
   * 'failed' when the thread died; it never rejects.
   */
  start(
    setup: ChannelThreadSetup,
    receive: (message: ChannelMessage) => void,
  ): { readonly ended: Promise<ThreadEnd> };
}

export interface KernelTransportOptions {
  readonly mountpoint: string;
  readonly namespace: Namespace;
  readonly threads: IoThreads;
  /** At least 2 is advised: one per CPU. */
  readonly threadCount: number;
  readonly allowOther: boolean;
  /** See `InitOptions`. Default false. */
  readonly writeback?: boolean;
  /** See `InitOptions`. Default 512. */
  readonly maxBackground?: number;
  /** A mount that somebody else made and keeps alive (a supervisor). */
  readonly adopt?: AdoptedMount;
  /** Where open files are written down, so that a later daemon on the same mount knows them. */
  readonly handleLog?: HandleLog;
  /** The mount was made; no request has been served yet. */
  readonly onMounted?: (mount: Mount) => void;
  /** What was agreed with the kernel, once in a mount's life. */
  readonly onNegotiated?: (agreed: Negotiated) => void;
  /**
   * An I/O thread died. It may have left locks behind, so a process that another one can take over
   * from should end here. Without this the thread is replaced, and its request refused.
   */
  readonly onThreadDeath?: (threadIndex: number) => void;
  /** Finds a disk on this thread, for writes that wait for room; without it they are refused. */
  readonly holdWritesOf?: ((handle: number) => BlockDevice) | undefined;
  /** What happens, for the log. */
  readonly onEvent?: (event: TransportEvent) => void;
}

export interface AdoptedMount {
  readonly mount: Mount;
  /**
   * Whether another process served it before: what that one took and did not answer is asked
   * for again.
   */
  readonly takeover: boolean;
  /** What that one agreed with the kernel, which negotiates only once. */
  readonly negotiated?: Negotiated;
  /** How many processes served it before. */
  readonly generation?: number;
}

/** What a channel and the kernel agreed: plain data. */
export type Negotiated = Omit<ReadyMessage, 'type'>;

/** Whether the kernel can be asked again for what a dead process left unanswered. */
export function canResend({ flags2 }: Negotiated): boolean {
  return (flags2 & INIT2.HAS_RESEND) !== 0;
}

const DEFAULT_MAX_BACKGROUND = 512;
/** After a lazy unmount (by somebody else, or by force without privileges) files may stay open. */
const STOP_LIMIT_MS = 5000;
const STOP_POLL_MS = 50;
/** A file that was closed is known to us a moment later. */
const IDLE_MS = 1000;
/** One request of the largest size. */
const READ_AHEAD_KIB = MAX_REQUEST_BYTES / 1024;
/** So many threads that died in so short a time are replaced; one more: the mount is given up. */
const MOST_REPLACEMENTS = 8;
const REPLACEMENT_PERIOD_MS = 60_000;

export function createKernelTransport(options: KernelTransportOptions): Transport {
  return new KernelTransport(options);
}

interface Session {
  readonly mount: Mount;
  readonly handler: RequestHandler;
  readonly notifier: Notifier;
  readonly passthrough: Passthrough;
}

/** @throws DiskError `not-supported` for a mount whose requests do not fit into our buffers. */
function checkAgreement(adopt: AdoptedMount | undefined): void {
  const { maxWrite = 0 } = adopt?.negotiated ?? {};
  if (maxWrite <= MAX_REQUEST_BYTES) return;
  throw new DiskError('not-supported', `the mount's requests have up to ${maxWrite} bytes`, {
    hint: 'layerdisk daemon stop, then layerdisk daemon start',
  });
}

class KernelTransport implements Transport {
  readonly kind = 'kernel';
  readonly ended: Promise<TransportEnd>;
  readonly #options: KernelTransportOptions;
  readonly #search = new HolderSearch();
  readonly #idle = new IdleThreads(
    () => this.mountpoint,
    () => this.#running,
  );
  readonly held: WriteHold | undefined;
  readonly #holdWords: HoldWords;
  #session: Session | undefined;
  #stopping = false;
  #gaveUp = false;
  #running = 0;
  /** When threads were replaced lately. */
  #replacements: number[] = [];
  #resolveEnded: (end: TransportEnd) => void = () => {};
  #resolveReady: () => void = () => {};

  constructor(options: KernelTransportOptions) {
    this.#options = options;
    const deviceOf = options.holdWritesOf;
    const words = makeHoldWords(deviceOf !== undefined);
    this.#holdWords = words;
    if (deviceOf !== undefined) {
      this.held = new WriteHold({
        ...{ words, deviceOf },
        reply: (unique, errno, body) =>
          writeReply(this.#session?.mount.fd ?? -1, unique, errno, body),
        onEvent: (level, message) => this.#event(level, message),
      });
    }
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
  }

  get mountpoint(): string {
    return this.#session?.mount.mountpoint ?? this.#options.mountpoint;
  }

  async start(): Promise<void> {
    const { adopt, mountpoint, allowOther, threadCount } = this.#options;
    checkAgreement(adopt);
    const mount =
      adopt?.mount ??
      (await mountKernelChannel({ mountpoint, allowOther, maxRead: MAX_REQUEST_BYTES }));
    this.#options.onMounted?.(mount);
    const passthrough = new Passthrough(mount.fd, (why) =>
      this.#event('info', `the kernel reads no file by itself here (${why})`),
    );
    const handler = new RequestHandler(
      this.#options.namespace,
      (unique, errno, body) => writeReply(mount.fd, unique, errno, body),
      (op, error) => this.#requestFailed(op, error),
      { log: this.#options.handleLog, passthrough, generation: adopt?.generation ?? 0 },
    );
    const notifier = new Notifier(mount.fd);
    this.#session = { mount, handler, notifier, passthrough };
    if (adopt?.negotiated !== undefined) this.#agreed(adopt.negotiated);
    await handler.restore();
    const ready = new Promise<void>((resolve) => {
      this.#resolveReady = resolve;
    });
    for (let index = 0; index < threadCount; index += 1) this.#startThread(index);
    if (adopt?.takeover === true) {
      await notifier.resend();
      this.#event('info', `${mount.mountpoint}: taken over`);
      return;
    }
    const end = await Promise.race([ready, this.ended]);
    if (end !== undefined) {
      throw new DiskError('failed', `${mount.mountpoint}: the mount ended before it was ready`);
    }
  }

  async invalidate(node: NodeId): Promise<void> {
    await this.#session?.notifier.invalidateNode(node);
  }

  async invalidateEntry(parent: NodeId, name: string): Promise<void> {
    await this.#session?.notifier.invalidateEntry(parent, name);
  }

  wakeThreads(): void {
    this.#idle.wakeSoon();
  }

  async holders(): Promise<readonly Holder[]> {
    if (this.#session === undefined) return [];
    const { mountpoint, device } = whereItIs(this.#session.mount);
    return this.#search.find(mountpoint, device);
  }

  async stop(options: StopOptions = {}): Promise<void> {
    if (this.#session === undefined || this.#running === 0) return;
    const mount = whereItIs(this.#session.mount);
    this.#stopping = true;
    // Those who wait get to know why; whoever unmounts by force would give them another error.
    if (options.force === true) this.held?.refuseAll();
    let unmounted = false;
    await this.#idle.stop();
    try {
      unmounted = await unmountKernelChannel(mount, options.force === true);
    } finally {
      this.#stopping = unmounted;
      if (!unmounted) this.#idle.goOn();
    }
    if (!unmounted) throw inUse(mount.mountpoint, await this.holders());
    if (await this.#isOver()) return;
    // When they are closed at last, nobody waits for that any more.
    this.#stopping = false;
    throw new DiskError('busy', `${mount.mountpoint}: unmounted, but files are still open`, {
      hint: 'end the programs that have them open, in containers or other mount namespaces, too',
    });
  }

  /**
   * Waits until the unmounted threads have ended. @returns false when they go on because files are
   * open; true also when they wait in vain: another mount namespace has a copy of the mount, and
   * no file open on it.
   */
  async #isOver(): Promise<boolean> {
    const ended = this.ended.then(() => true);
    const limit = performance.now() + STOP_LIMIT_MS;
    let idleSince = performance.now();
    while (!(await Promise.race([ended, delay(STOP_POLL_MS, false, { ref: false })]))) {
      const now = performance.now();
      if ((this.#session?.handler.openDisks ?? 0) > 0) idleSince = now;
      if (now - idleSince > IDLE_MS) return true;
      if (now > limit) return false;
    }
    return true;
  }

  #startThread(threadIndex: number): void {
    const { threads, adopt, maxBackground = DEFAULT_MAX_BACKGROUND } = this.#options;
    const agreed = adopt?.negotiated;
    const writeback =
      agreed === undefined
        ? this.#options.writeback === true
        : (agreed.flags & INIT.WRITEBACK_CACHE) !== 0;
    const fd = this.#session?.mount.fd ?? -1;
    const current = new Uint32Array(new SharedArrayBuffer(8));
    const hold = this.#holdWords;
    const setup = { fd, threadIndex, writeback, maxBackground, current, hold };
    const thread = threads.start(setup, (message) => this.#receive(message));
    this.#running += 1;
    void thread.ended.then((end) => this.#threadEnded(setup, end));
  }

  #receive(message: ChannelMessage): void {
    switch (message.type) {
      case 'request':
        void this.#session?.handler.handle(message);
        return;
      case 'ready':
        this.#ready(message);
        return;
      case 'held':
        this.held?.add(message);
        return;
      case 'trouble':
        this.#trouble(message);
    }
  }

  #ready({ type: _, ...message }: ReadyMessage): void {
    this.#agreed(message);
    this.#options.onNegotiated?.(message);
    this.#raiseReadAhead();
    this.#event('info', `${this.mountpoint}: mounted, FUSE protocol 7.${message.minor}`);
    this.#resolveReady();
  }

  #agreed({ flags2 }: Negotiated): void {
    if ((flags2 & INIT2.PASSTHROUGH) !== 0) this.#session?.passthrough.allow();
  }

  #trouble(trouble: TroubleMessage): void {
    const { threadIndex, opcode, message, suppressed, bug, stack } = trouble;
    const more = suppressed === 0 ? '' : ` (and ${suppressed} more errors before it)`;
    const text = `I/O thread ${threadIndex}, request ${opcode}: ${message}${more}`;
    this.#event(bug ? 'error' : 'warning', text, stack);
  }

  #requestFailed(op: string, error: unknown): void {
    // Told to the caller by its errno; only what a takeover loses has no caller yet.
    if (error instanceof DiskError && op !== 'reopen') return;
    const bug = error instanceof DiskError ? undefined : error;
    const text = error instanceof Error ? error.message : String(error);
    this.#event('error', `request ${op}: ${text}`, bug instanceof Error ? bug.stack : undefined);
  }

  /** Unmounted threads end one by one; one that died is replaced, and its request refused. */
  async #threadEnded(setup: ChannelThreadSetup, end: ThreadEnd): Promise<void> {
    if (end === 'failed' && !this.#gaveUp) {
      this.#options.onThreadDeath?.(setup.threadIndex);
      this.#refuseLostRequest(setup);
      if (this.#mayReplace()) {
        this.#event('error', `I/O thread ${setup.threadIndex} died and is replaced`);
        this.#startThread(setup.threadIndex);
      } else {
        this.#gaveUp = true;
        this.#event('error', `I/O thread ${setup.threadIndex} died again: giving the mount up`);
        await this.#takeAway();
      }
    }
    this.#running -= 1;
    if (this.#running === 0) await this.#finish(end);
  }

  /**
   * The caller of the request that a dead thread was at would wait for ever. Asking the kernel
   * for it again would be wrong: it resends what living threads are at, too, and a write that one
   * of them finishes late could then undo a newer one.
   */
  #refuseLostRequest({ fd, current }: ChannelThreadSetup): void {
    const [lo = 0, hi = 0] = current;
    if (lo === 0 && hi === 0) return;
    try {
      writeReply(fd, { lo, hi }, constants.errno.EIO);
    } catch (error) {
      this.#event('error', `cannot refuse the request of a dead thread: ${String(error)}`);
    }
  }

  #mayReplace(): boolean {
    const now = performance.now();
    const lately = this.#replacements.filter((when) => now - when < REPLACEMENT_PERIOD_MS);
    this.#replacements = [...lately, now];
    return lately.length < MOST_REPLACEMENTS;
  }

  /** The kernel starts with 128 KiB, which makes readers of whole disks wait for many requests. */
  #raiseReadAhead(): void {
    const device = this.#session?.mount.device ?? '';
    try {
      writeFileSync(`/sys/class/bdi/${device}/read_ahead_kb`, String(READ_AHEAD_KIB));
    } catch {
      // Only root may; without it sequential buffered reads are about 15% slower, no more.
    }
  }

  /** Without threads every user of the mount would hang: end it, so that they get errors. */
  async #takeAway(): Promise<void> {
    if (this.#session === undefined) return;
    try {
      await unmountKernelChannel(this.#session.mount, true);
    } catch (error) {
      this.#event('error', `cannot take the mount away: ${String(error)}`);
    }
  }

  async #finish(end: ThreadEnd): Promise<void> {
    if (this.#session !== undefined) {
      await this.#session.handler.releaseAll();
      await this.#session.notifier.idle();
      closeSync(this.#session.mount.fd);
    }
    this.#resolveEnded(this.#stopping ? 'stopped' : this.#gaveUp ? 'failed' : end);
  }

  #event(level: TransportEvent['level'], message: string, stack?: string): void {
    this.#options.onEvent?.({ level, message, ...(stack === undefined ? {} : { stack }) });
  }
}
