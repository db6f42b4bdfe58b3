/**
 * A client's end of the control socket. Loads this room and `common` alone, so that commands start
 * fast.
 */
import { lstatSync, type Stats } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { DiskError, errnoName } from '../common/errors.js';
import { checkSocketPath } from '../common/places.js';
import { shellWord } from '../common/shell-word.js';
import { encodeMessage, LineDecoder } from './framing.js';
import {
  CANCEL_METHOD,
  cancelled,
  EVENT_METHOD,
  isRecord,
  oneLine,
  PROGRESS_METHOD,
  parseMessage,
} from './messages.js';
import {
  type EventView,
  MAX_ANSWER_BYTES,
  MAX_MESSAGE_BYTES,
  type MethodName,
  type Params,
  type ProgressNotice,
  type Result,
} from './protocol.js';

/**
 * How long a cancelled request may take to be answered before the client stops waiting,
 * milliseconds.
 */
const CANCEL_GRACE_MS = 10_000;
const RETRY_MS = 50;

export interface CallOptions {
  /**
   * Aborting asks the daemon to cancel; the call then fails as `interrupted` once the daemon says
   * so.
   */
  readonly signal?: AbortSignal;
  readonly onProgress?: (notice: ProgressNotice) => void;
  /**
   * Of `events`. Until a promise that it returns settles nothing more is read, so that the daemon
   * sees a client that does not keep up.
   */
  readonly onEvent?: OnEvent;
}

export type OnEvent = (event: EventView) => unknown;

export interface ControlClient {
  /**
   * Asks the daemon and waits for its answer.
   * @throws DiskError as the daemon gave it; `unreachable` when the connection breaks before the
   * answer.
   */
  call<M extends MethodName>(
    method: M,
    params: Params<M>,
    options?: CallOptions,
  ): Promise<Result<M>>;
  /** Ends the connection; calls without an answer fail. */
  close(): void;
}

export interface ConnectOptions {
  /**
   * How long to wait for a daemon that may just be replaced, milliseconds: its socket is there, but
   * nobody listens. Default 0.
   */
  readonly patience?: number;
}

/**
 * Connects to the daemon.
 * @throws DiskError `unreachable` when none answers there; `not-permitted` when this user may not
 * ask it, or when the socket belongs to another user who could only be posing as the daemon.
 */
export async function connect(
  path: string,
  { patience = 0 }: ConnectOptions = {},
): Promise<ControlClient> {
  checkSocketPath(path);
  const until = performance.now() + patience;
  for (let isLeftBehind = false; ; ) {
    try {
      return await connectOnce(path);
    } catch (error) {
      const errno = error instanceof DiskError ? error.errno : undefined;
      // The next daemon makes the socket anew: for an instant there is none.
      isLeftBehind = errno === 'ECONNREFUSED' || (isLeftBehind && errno === 'ENOENT');
      if (!isLeftBehind || performance.now() >= until) throw error;
      await delay(RETRY_MS);
    }
  }
}

async function connectOnce(path: string): Promise<ControlClient> {
  checkOwner(path);
  const socket = createConnection(path);
  await new Promise<void>((done, fail) => {
    socket.once('connect', done);
    socket.once('error', (error) => fail(describeConnectError(path, error)));
  });
  socket.removeAllListeners('error');
  return new SocketClient(path, socket);
}

/**
 * Only root and the user himself may run the daemon that a user trusts with his disks; root trusts
 * his own `--socket`.
 */
function checkOwner(path: string): void {
  let stat: Stats;
  try {
    stat = lstatSync(path);
  } catch (error) {
    throw describeConnectError(path, error);
  }
  const uid = process.getuid?.() ?? 0;
  if (uid === 0 || stat.uid === 0 || stat.uid === uid) return;
  throw new DiskError(
    'not-permitted',
    `the socket ${path} belongs to another user (uid ${stat.uid})`,
    {
      hint: 'name your own daemon: --socket PATH or LAYERDISK_SOCKET',
    },
  );
}

function describeConnectError(path: string, error: unknown): DiskError {
  const errno = errnoName(error) ?? 'EIO';
  if (errno === 'EACCES' || errno === 'EPERM') {
    return new DiskError('not-permitted', `no permission to use the control socket ${path}`, {
      hint: `run as root, or join the group that owns it: ls -l ${shellWord(path)}`,
      errno,
      cause: error,
    });
  }
  const message =
    errno === 'ENOENT' || errno === 'ECONNREFUSED' || errno === 'ENOTDIR'
      ? `no daemon answers on ${path}`
      : `cannot reach the daemon on ${path} (${errno})`;
  return new DiskError('unreachable', message, {
    hint: 'layerdisk daemon start',
    errno,
    cause: error,
  });
}

interface PendingCall {
  readonly method: MethodName;
  readonly onProgress: ((notice: ProgressNotice) => void) | undefined;
  readonly onEvent: OnEvent | undefined;
  readonly signal: AbortSignal | undefined;
  succeed(result: unknown): void;
  fail(error: DiskError): void;
}

class SocketClient implements ControlClient {
  readonly #path: string;
  readonly #socket: Socket;
  readonly #lines = new LineDecoder(MAX_ANSWER_BYTES);
  readonly #pending = new Map<number, PendingCall>();
  #nextId = 1;

  constructor(path: string, socket: Socket) {
    this.#path = path;
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    // 'close' follows and says the same to every call that waits.
    socket.on('error', () => {});
    socket.on('close', () => this.#failAll('the daemon closed the connection'));
  }

  async call<M extends MethodName>(
    method: M,
    params: Params<M>,
    options: CallOptions = {},
  ): Promise<Result<M>> {
    const { signal } = options;
    if (signal?.aborted) throw cancelled(method, params);
    const id = this.#nextId++;
    const line = encodeMessage({ jsonrpc: '2.0', id, method, params });
    if (Buffer.byteLength(line) - 1 > MAX_MESSAGE_BYTES) {
      throw new DiskError(
        'usage',
        `${method}: the request is longer than ${MAX_MESSAGE_BYTES} bytes`,
      );
    }
    let giveUp: NodeJS.Timeout | undefined;
    const onAbort = () => {
      // The answer comes behind what was not read yet.
      this.#socket.resume();
      this.#socket.write(encodeMessage({ jsonrpc: '2.0', method: CANCEL_METHOD, params: { id } }));
      giveUp = setTimeout(() => this.#settle(id)?.fail(cancelled(method, params)), CANCEL_GRACE_MS);
    };
    const { onProgress, onEvent } = options;
    try {
      return await new Promise<Result<M>>((done, fail) => {
        // The daemon is of our own version and checked by nothing but its word.
        const succeed = (result: unknown) => done(result as Result<M>);
        this.#pending.set(id, { method, onProgress, onEvent, signal, succeed, fail });
        if (!this.#socket.writable) {
          this.#failAll('the daemon closed the connection');
          return;
        }
        signal?.addEventListener('abort', onAbort, { once: true });
        this.#socket.write(line);
      });
    } finally {
      signal?.removeEventListener('abort', onAbort);
      clearTimeout(giveUp);
    }
  }

  close(): void {
    this.#socket.end();
    // A daemon that hangs must not keep this process alive.
    this.#socket.unref();
    this.#failAll('the connection was closed');
  }

  #receive(chunk: Buffer): void {
    try {
      for (const line of this.#lines.push(chunk)) this.#handleLine(line);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      this.#failAll(`it answered with something that is no message (${reason})`);
      this.#socket.destroy();
    }
  }

  #handleLine(line: string): void {
    const message = parseMessage(line);
    switch (message.kind) {
      case 'answer':
        this.#settle(message.id)?.succeed(message.result);
        return;
      case 'failure': {
        const error = DiskError.fromJSON(message.error.data);
        if (message.id === null) this.#failAll(error.message);
        else this.#settle(message.id)?.fail(error);
        return;
      }
      case 'notification':
        if (message.method === PROGRESS_METHOD) this.#progress(message.params);
        if (message.method === EVENT_METHOD) this.#event(message.params);
        return;
      case 'malformed':
        this.#failAll(`it answered with something that is no message (${message.reason})`);
        this.#socket.destroy();
        return;
      default:
        // A request: the daemon asks its clients nothing.
        return;
    }
  }

  #progress(params: unknown): void {
    if (!isRecord(params) || typeof params.id !== 'number') return;
    const { id, what, doneBytes, totalBytes } = params;
    if (typeof what !== 'string' || typeof doneBytes !== 'number') return;
    if (typeof totalBytes !== 'number') return;
    this.#pending.get(id)?.onProgress?.({ id, what: oneLine(what), doneBytes, totalBytes });
  }

  #event(params: unknown): void {
    if (!isRecord(params) || typeof params.id !== 'number' || !isRecord(params.event)) return;
    const { time, event, text } = params.event;
    if (typeof time !== 'string' || typeof event !== 'string' || typeof text !== 'string') return;
    // As with results: the daemon's word is what there is.
    const known = params.event as unknown as EventView;
    const call = this.#pending.get(params.id);
    const until = call?.onEvent?.({ ...known, text: oneLine(text) });
    if (!(until instanceof Promise) || call?.signal?.aborted === true) return;
    const resume = () => this.#socket.resume();
    this.#socket.pause();
    until.then(resume, resume);
  }

  #settle(id: number | string): PendingCall | undefined {
    if (typeof id !== 'number') return undefined;
    const call = this.#pending.get(id);
    this.#pending.delete(id);
    return call;
  }

  #failAll(reason: string): void {
    for (const call of this.#pending.values()) {
      call.fail(
        new DiskError('unreachable', `${this.#path}: no answer to ${call.method}: ${reason}`, {
          hint: 'see whether it still runs: layerdisk daemon status',
        }),
      );
    }
    this.#pending.clear();
  }
}
