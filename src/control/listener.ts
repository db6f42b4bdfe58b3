/** The place of the control socket: a folder that is safe, a socket of ours in it, and again. */
import { lstatSync, mkdirSync, type Stats, statSync, unlinkSync } from 'node:fs';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { DiskError, errnoName } from '../common/errors.js';
import { requireSafeFolder } from '../common/safe-folder.js';
import type { ControlLog } from './connection.js';

/** Owner and group may connect, nobody else: a socket is made with 0777 less this. */
const SOCKET_UMASK = 0o117;
const PRIVATE_FOLDER = 0o700;
const SOCKET_SAFETY = { what: 'a control socket', option: '--socket', stickyIsSafe: true };

/** Listens at a path, and again where somebody removed the socket: cleaners of /tmp do. */
export class Listener {
  readonly #path: string;
  readonly #log: ControlLog;
  readonly #onClient: (socket: Socket) => void;
  #server: Server | undefined;
  #renewing = false;
  #isClosed = false;
  /** Servers whose clients have not all gone. */
  readonly #closing: Promise<void>[] = [];

  constructor(
    { path, log }: { readonly path: string; readonly log: ControlLog },
    onClient: (socket: Socket) => void,
  ) {
    this.#path = path;
    this.#log = log;
    this.#onClient = onClient;
  }

  /** @throws DiskError when there can be no socket at the path. */
  async start(): Promise<void> {
    const server = createServer({ allowHalfOpen: true }, this.#onClient);
    await listen(server, this.#path);
    server.on('error', (error) => {
      // Typically EMFILE: this client is not served, the next one may be.
      this.#log.error(`control socket: ${error.message}`);
    });
    this.#server = server;
  }

  /** Makes the socket anew where nothing is at its path any more. */
  check(): void {
    if (this.#renewing || this.#isClosed || isThere(this.#path)) return;
    this.#renewing = true;
    this.#log.warn(`control socket: somebody removed ${this.#path}; making it anew`);
    this.#renew().catch((error: unknown) => {
      // Tried no more: each time would say the same.
      this.#log.error(`control socket: ${error instanceof Error ? error.message : String(error)}`);
    });
  }

  async #renew(): Promise<void> {
    // First, because it removes what is at the path. Clients that it has stay.
    this.#leave();
    prepareFolder(dirname(this.#path));
    await this.start();
    this.#renewing = false;
    if (this.#isClosed) this.#leave();
  }

  #leave(): void {
    const server = this.#server;
    this.#server = undefined;
    if (server === undefined) return;
    this.#closing.push(new Promise((done) => server.close(() => done())));
  }

  /** Removes the socket. Resolves when every client has gone. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#leave();
    await Promise.all(this.#closing);
  }
}

function isThere(path: string): boolean {
  try {
    lstatSync(path);
    return true;
  } catch (error) {
    return errnoName(error) !== 'ENOENT';
  }
}

/**
 * Binds under a umask, since a mode that is set after the bind leaves a moment in which anyone may
 * connect.
 */
function listen(server: Server, path: string): Promise<void> {
  return new Promise((done, fail) => {
    server.once('error', (error) => fail(describeListenError(path, error)));
    const before = process.umask(SOCKET_UMASK);
    try {
      // For a path, bind(2) happens inside this call.
      server.listen(path, () => {
        server.removeAllListeners('error');
        done();
      });
    } finally {
      process.umask(before);
    }
  });
}

function describeListenError(path: string, error: Error): DiskError {
  const errno = errnoName(error) ?? 'EIO';
  if (errno === 'EACCES' || errno === 'EPERM' || errno === 'EROFS') {
    return new DiskError('not-permitted', `cannot make the control socket ${path} (${errno})`, {
      hint: 'run as root, or give --socket a path in a folder of yours',
      errno,
      cause: error,
    });
  }
  return new DiskError('failed', `cannot make the control socket ${path} (${errno})`, {
    hint: 'give --socket another path',
    errno,
    cause: error,
  });
}

/**
 * Makes the folder where it is missing.
 * @throws DiskError `not-permitted` where others could put a socket of theirs in the place of ours.
 */
export function prepareFolder(folder: string): void {
  let stat: Stats;
  try {
    mkdirSync(folder, { recursive: true, mode: PRIVATE_FOLDER });
    stat = statSync(folder);
  } catch (error) {
    throw describeListenError(folder, error instanceof Error ? error : new Error(String(error)));
  }
  requireSafeFolder(folder, stat, SOCKET_SAFETY);
}

/**
 * @throws DiskError unless the path is free or was a socket on which nobody answers, which is then
 * removed.
 */
export async function removeStaleSocket(path: string, isOurs: boolean): Promise<void> {
  let stat: Stats;
  try {
    stat = lstatSync(path);
  } catch (error) {
    if (errnoName(error) === 'ENOENT') return;
    throw describeListenError(path, error instanceof Error ? error : new Error(String(error)));
  }
  if (!stat.isSocket()) {
    throw new DiskError('exists', `${path} exists and is not a socket`, {
      hint: 'move it away, or give --socket another path',
    });
  }
  const errno = isOurs ? 'ECONNREFUSED' : await tryConnect(path);
  if (errno === 'ECONNREFUSED') {
    unlinkSync(path);
  } else if (errno !== 'ENOENT') {
    throw new DiskError('busy', `a daemon already answers on ${path}`, {
      hint: 'see what it serves: layerdisk daemon status',
    });
  }
}

/** Connects and closes at once. @returns the errno's name, undefined when somebody answers. */
function tryConnect(path: string): Promise<string | undefined> {
  return new Promise((done) => {
    const socket: Socket = createConnection(path);
    socket.once('connect', () => {
      socket.destroy();
      done(undefined);
    });
    socket.once('error', (error) => done(errnoName(error) ?? 'EIO'));
  });
}
