/** One client of the control socket: its requests under way, its limits, its answers. */
import type { Socket } from 'node:net';
import { DiskError } from '../common/errors.js';
import { EventStream } from './event-stream.js';
import { encodeMessage, FramingError, LineDecoder } from './framing.js';
import {
  CANCEL_METHOD,
  cancelled,
  EVENT_METHOD,
  isRecord,
  isRequestId,
  oneLine,
  PROGRESS_METHOD,
  parseMessage,
  type RequestId,
  RPC,
  type RpcError,
  rpcError,
} from './messages.js';
import type { CallContext, EventNotice, Handlers, MethodName, ProgressNotice } from './protocol.js';
import { checkParams, isMethodName } from './schemas.js';

/**
 * What one client may take; past any of these it is refused or dropped, and no one else notices.
 */
export interface ControlLimits {
  /** Longest request, bytes: the connection is closed. */
  readonly messageBytes: number;
  /** Requests under way on one connection: one more is refused as `busy`. */
  readonly requests: number;
  /** Bytes of answers that the client has not read: the connection is dropped. */
  readonly unreadBytes: number;
  /**
   * How long a line may stay unfinished, or an answer unread, in milliseconds: the connection is
   * dropped. Events may stay unread for ever.
   */
  readonly stallMs: number;
  /**
   * Clients at once: the one that has been idle longest makes room, else the new one is refused.
   */
  readonly connections: number;
  /** How long closing waits for cancelled requests and unread answers, milliseconds. */
  readonly closeMs: number;
  /** Shortest time between two progress notifications of a request, milliseconds. */
  readonly progressMs: number;
  /** Bytes that the client has not read: events are left out meanwhile. */
  readonly eventBytes: number;
}

/** Where the control room reports; winston's logger fits. */
export interface ControlLog {
  info(message: string, fields?: object): void;
  warn(message: string, fields?: object): void;
  error(message: string, fields?: object): void;
}

/** Progress is dropped rather than queued while this much is unread. */
const PROGRESS_UNREAD_BYTES = 64 * 1024;

const BY_CLIENT = new DiskError('interrupted', 'cancelled by the client');

export interface ConnectionOptions {
  readonly handlers: Handlers;
  readonly log: ControlLog;
  readonly limits: ControlLimits;
}

/**
 * INVARIANT: every request is answered once, unless the connection is gone.
 * INVARIANT: when the connection goes, the requests under way on it are cancelled.
 */
export class Connection {
  readonly #socket: Socket;
  readonly #handlers: Handlers;
  readonly #log: ControlLog;
  readonly #limits: ControlLimits;
  readonly #lines: LineDecoder;
  readonly #running = new Map<RequestId, AbortController>();
  readonly #streams = new Map<RequestId, EventStream>();
  /**
   * When the unfinished line began, when the unread answers last shrank: undefined where there is
   * none.
   */
  #lineSince: number | undefined;
  #unreadSince: number | undefined;
  /** Answers that the kernel has not taken yet. */
  #unread = 0;
  #lastActive = performance.now();
  /** No more requests are taken: the stream is broken or the daemon stops. */
  #refusing = false;
  /** The client has sent all it wants to; it may still read (`printf ... | nc -U`). */
  #ended = false;

  constructor(socket: Socket, options: ConnectionOptions) {
    this.#socket = socket;
    this.#handlers = options.handlers;
    this.#log = options.log;
    this.#limits = options.limits;
    this.#lines = new LineDecoder(options.limits.messageBytes);
    socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    socket.on('drain', () => {
      for (const stream of this.#streams.values()) stream.tellLost();
    });
    // A client that vanishes is nothing to report; 'close' follows and does the work.
    socket.on('error', () => {});
    socket.on('end', () => {
      this.#ended = true;
      this.#closeIfDone();
    });
    socket.on('close', () => this.#cancelAll('the client went away'));
  }

  get idle(): boolean {
    return this.#running.size === 0;
  }

  /** By `performance.now()`: when the client last sent something or was last answered. */
  get lastActive(): number {
    return this.#lastActive;
  }

  /**
   * Drops a client that stalls, and notices one that went. Called by the server's clock.
   * @param now by `performance.now()`: the host's clock may be set while somebody waits.
   */
  check(now: number): void {
    // One that only stopped sending looks like one that is gone until something is written to it.
    // An empty line means nothing to either end's decoder, nor to jq.
    const isWaiting = this.#running.size > 0 && this.#socket.writableLength === 0;
    if (this.#ended && isWaiting) this.#socket.write('\n');
    const before = now - this.#limits.stallMs;
    if (this.#lineSince !== undefined && this.#lineSince < before) {
      this.drop('half a message and then nothing');
    } else if (this.#unreadSince !== undefined && this.#unreadSince < before) {
      this.drop('it does not read its answers');
    }
  }

  drop(reason: string): void {
    this.#log.warn(`control client dropped: ${reason}`);
    this.#socket.destroy();
  }

  /** Takes no more requests, cancels those under way, and closes once they have been answered. */
  finish(reason: string): void {
    this.#refusing = true;
    this.#cancelAll(reason);
    this.#closeIfDone();
  }

  /** Closes when nothing more can be asked and everything has been answered. */
  #closeIfDone(): void {
    if (!(this.#ended || this.#refusing) || this.#running.size > 0) return;
    this.#socket.end(() => this.#socket.destroy());
  }

  #cancelAll(reason: string): void {
    for (const controller of this.#running.values()) {
      controller.abort(new DiskError('interrupted', reason));
    }
  }

  #receive(chunk: Buffer): void {
    this.#lastActive = performance.now();
    try {
      for (const line of this.#lines.push(chunk)) {
        this.#lineSince = undefined;
        if (this.#socket.destroyed || this.#refusing) return;
        this.#handleLine(line);
      }
    } catch (error) {
      if (!(error instanceof FramingError)) throw error;
      this.#refuseStream(error.message);
      return;
    }
    this.#lineSince =
      this.#lines.pending === 0 ? undefined : (this.#lineSince ?? performance.now());
  }

  /** Nothing that follows can be understood: say so and close. */
  #refuseStream(reason: string): void {
    this.#log.warn(`control client refused: ${reason}`);
    this.#sendError(null, rpcError(RPC.PARSE_ERROR, new DiskError('usage', reason)));
    // It flows on, and what comes is thrown away.
    this.#socket.removeAllListeners('data');
    this.finish('the client sent something that is no message');
  }

  #handleLine(line: string): void {
    const message = parseMessage(line);
    switch (message.kind) {
      case 'request':
        this.#start(message.id, message.method, message.params);
        return;
      case 'notification':
        // A method without an id could not be answered, so it is not run either: only the cancel is
        // one.
        if (message.method === CANCEL_METHOD) this.#cancel(message.params);
        return;
      case 'malformed':
        this.#sendError(message.id, rpcError(message.code, new DiskError('usage', message.reason)));
        return;
      default:
        // The daemon asks its clients nothing, so an answer belongs to nothing.
        return;
    }
  }

  #cancel(params: unknown): void {
    if (!isRecord(params) || !isRequestId(params.id)) return;
    this.#running.get(params.id)?.abort(BY_CLIENT);
  }

  #start(id: RequestId, method: string, params: unknown): void {
    if (this.#running.has(id)) {
      const error = new DiskError('usage', `request ${id} is already under way`);
      this.#sendError(null, rpcError(RPC.INVALID_REQUEST, error));
      return;
    }
    if (this.#running.size >= this.#limits.requests) {
      const error = new DiskError('busy', `${this.#running.size} requests are already under way`, {
        hint: 'wait for answers before asking more on one connection',
      });
      this.#sendError(id, rpcError(RPC.OPERATION_FAILED, error));
      return;
    }
    if (!isMethodName(method)) {
      const error = new DiskError('not-supported', oneLine(`no method "${method}"`), {
        hint: 'see whether client and daemon are of one version: layerdisk daemon status',
      });
      this.#sendError(id, rpcError(RPC.METHOD_NOT_FOUND, error));
      return;
    }
    void this.#run(id, method, params);
  }

  async #run<M extends MethodName>(id: RequestId, method: M, params: unknown): Promise<void> {
    const controller = new AbortController();
    this.#running.set(id, controller);
    try {
      const context = this.#contextFor(id, controller.signal);
      const result = await this.#handlers[method](checkedParams(method, params), context);
      this.#streams.get(id)?.tellLost();
      this.#send({ jsonrpc: '2.0', id, result });
    } catch (error) {
      this.#streams.get(id)?.tellLost();
      this.#sendError(id, this.#describe(method, params, error, controller.signal));
    } finally {
      this.#running.delete(id);
      this.#streams.delete(id);
      this.#lastActive = performance.now();
      this.#closeIfDone();
    }
  }

  #describe(method: MethodName, params: unknown, error: unknown, signal: AbortSignal): RpcError {
    if (error instanceof InvalidParams) return rpcError(RPC.INVALID_PARAMS, error.reason);
    if (signal.aborted && isAbort(error)) {
      const why = signal.reason === BY_CLIENT ? undefined : signal.reason.message;
      return rpcError(RPC.CANCELLED, cancelled(method, params, why));
    }
    if (error instanceof DiskError) {
      const code = error.code === 'interrupted' ? RPC.CANCELLED : RPC.OPERATION_FAILED;
      return rpcError(code, error);
    }
    const stack = error instanceof Error ? error.stack : undefined;
    this.#log.error(`bug in ${method}: ${String(error)}`, { method, stack });
    const text = error instanceof Error ? error.message : String(error);
    const message = oneLine(`${method} failed because of a bug: ${text}`);
    const bug = new DiskError('failed', message, { hint: 'the log of the daemon has the details' });
    return rpcError(RPC.INTERNAL_ERROR, bug);
  }

  #contextFor(id: RequestId, signal: AbortSignal): CallContext {
    let lastSent = Number.NEGATIVE_INFINITY;
    return {
      signal,
      progress: (what, doneBytes, totalBytes) => {
        const now = performance.now();
        const last = doneBytes >= totalBytes;
        if (!this.#running.has(id) || (!last && now - lastSent < this.#limits.progressMs)) return;
        if (this.#socket.writableLength > PROGRESS_UNREAD_BYTES) return;
        lastSent = now;
        const params: ProgressNotice = { id, what, doneBytes, totalBytes };
        this.#send({ jsonrpc: '2.0', method: PROGRESS_METHOD, params });
      },
      event: (event) => {
        if (!this.#running.has(id)) return;
        const stream = this.#streams.get(id) ?? this.#newStream(id);
        stream.send(event);
      },
    };
  }

  #newStream(id: RequestId): EventStream {
    const stream = new EventStream({
      isFull: () => this.#socket.writableLength > this.#limits.eventBytes,
      write: (event) => this.#sendEvent({ id, event }),
    });
    this.#streams.set(id, stream);
    return stream;
  }

  /** There are never many unread: nobody is dropped for not reading them. */
  #sendEvent(params: EventNotice): void {
    if (!this.#socket.writable) return;
    this.#socket.write(encodeMessage({ jsonrpc: '2.0', method: EVENT_METHOD, params }));
  }

  #sendError(id: RequestId | null, error: RpcError): void {
    this.#send({ jsonrpc: '2.0', id, error });
  }

  #send(message: object): void {
    if (!this.#socket.writable) return;
    if (this.#socket.writableLength > this.#limits.unreadBytes) {
      this.drop('it does not read its answers');
      return;
    }
    const line = encodeMessage(message);
    this.#unread += 1;
    if (!this.#socket.write(line, () => this.#answerLeft()))
      this.#unreadSince ??= performance.now();
  }

  /** Not 'drain': events that follow may keep that from ever coming. */
  #answerLeft(): void {
    this.#unread -= 1;
    this.#unreadSince = this.#unread === 0 ? undefined : performance.now();
  }
}

/** Parameters that do not fit, told apart from a `usage` error of the operation itself. */
class InvalidParams extends Error {
  readonly reason: DiskError;

  constructor(reason: DiskError) {
    super(reason.message);
    this.reason = reason;
  }
}

function checkedParams<M extends MethodName>(method: M, params: unknown) {
  try {
    return checkParams(method, params);
  } catch (error) {
    throw error instanceof DiskError ? new InvalidParams(error) : error;
  }
}

/** Whether an error is how Node's and our own code say "the signal was aborted". */
function isAbort(error: unknown): boolean {
  if (error instanceof DiskError) return error.code === 'interrupted';
  return error instanceof Error && error.name === 'AbortError';
}
