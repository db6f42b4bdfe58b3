/** The daemon's end of the control socket: a unix socket that many clients, good and bad, share. */
import { lstatSync, mkdirSync, type Stats, statSync, unlinkSync } from 'node:fs';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { DiskError, errnoName } from '../common/errors.js';
import { checkSocketPath } from '../common/places.js';
import { Connection, type ControlLimits, type ControlLog } from './connection.js';
import { type Handlers, MAX_MESSAGE_BYTES } from './protocol.js';

export type { ControlLimits, ControlLog } from './connection.js';

export const DEFAULT_LIMITS: ControlLimits = {
  messageBytes: MAX_MESSAGE_BYTES,
  requests: 32,
  unreadBytes: 8 * 1024 * 1024,
  stallMs: 30_000,
  connections: 256,
  closeMs: 5000,
  progressMs: 100,
};

/** Owner and group may connect, nobody else: a socket is made with 0777 less this. */
const SOCKET_UMASK = 0o117;
const PRIVATE_FOLDER = 0o700;
const WORLD_WRITABLE = 0o002;
const STICKY = 0o1000;
/** How often stalled and vanished clients are looked for, milliseconds. */
const CHECK_MS = 1000;

export interface ControlServerOptions {
  readonly path: string;
  readonly handlers: Handlers;
  readonly log: ControlLog;
  readonly limits?: Partial<ControlLimits>;
  /** The path is ours although somebody may still listen there: a predecessor that is dead. */
  readonly replace?: boolean;
}

export interface ControlServer {
  readonly path: string;
  /**
   * Stops listening, removes the socket, cancels the requests under way, answers them and closes
   * every connection. A handler must not wait for it: it would wait for itself.
   */
  close(): Promise<void>;
}

/**
 * Listens on a unix socket of mode 0660. A socket that nobody answers on is replaced; its folder is
 * made (mode 0700) where it is missing, and must not be open to everyone. The caller holds the lock
 * of the store: two daemons that start on one socket at the same instant are told apart by that,
 * not here.
 * @throws DiskError `busy` when a daemon answers there, `exists` when the path is something else,
 * `not-permitted` for the folder, `usage` for a path that is too long.
 */
export async function serveControl(options: ControlServerOptions): Promise<ControlServer> {
  checkSocketPath(options.path);
  prepareFolder(dirname(options.path));
  await removeStaleSocket(options.path, options.replace === true);
  const limits = { ...DEFAULT_LIMITS, ...options.limits };
  const connections = new Set<Connection>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    if (!makeRoom(connections, limits.connections)) {
      options.log.warn(`control client refused: ${connections.size} clients are at work`);
      socket.destroy();
      return;
    }
    const connection = new Connection(socket, { ...options, limits });
    connections.add(connection);
    socket.on('close', () => connections.delete(connection));
  });
  await listen(server, options.path);
  server.on('error', (error) => {
    // Typically EMFILE: this client is not served, the next one may be.
    options.log.error(`control socket: ${error.message}`);
  });
  const clock = setInterval(() => {
    const now = Date.now();
    for (const connection of connections) connection.check(now);
  }, CHECK_MS);
  clock.unref();
  return {
    path: options.path,
    close: async () => {
      const closed = new Promise<void>((done) => server.close(() => done()));
      for (const connection of connections) connection.finish('the daemon is stopping');
      const grace = setTimeout(() => {
        for (const connection of connections) connection.drop('the daemon is stopping');
      }, limits.closeMs);
      await closed;
      clearTimeout(grace);
      clearInterval(clock);
    },
  };
}

/**
 * Drops the client that has been idle longest when there are too many; false when all are at work.
 */
function makeRoom(connections: Set<Connection>, limit: number): boolean {
  if (connections.size < limit) return true;
  let oldest: Connection | undefined;
  for (const connection of connections) {
    if (connection.idle && (oldest === undefined || connection.lastActive < oldest.lastActive)) {
      oldest = connection;
    }
  }
  if (oldest === undefined) return false;
  oldest.drop('it was idle and others wait');
  connections.delete(oldest);
  return true;
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

function prepareFolder(folder: string): void {
  let stat: Stats;
  try {
    mkdirSync(folder, { recursive: true, mode: PRIVATE_FOLDER });
    stat = statSync(folder);
  } catch (error) {
    throw describeListenError(folder, error instanceof Error ? error : new Error(String(error)));
  }
  const open = (stat.mode & WORLD_WRITABLE) !== 0 && (stat.mode & STICKY) === 0;
  if (!open) return;
  throw new DiskError(
    'not-permitted',
    `${folder} may be written by everyone, so a control socket there is not safe`,
    {
      hint: `chmod o-w ${folder}, or give --socket another path`,
    },
  );
}

/**
 * @throws DiskError unless the path is free or was a socket on which nobody answers, which is then
 * removed.
 */
async function removeStaleSocket(path: string, isOurs: boolean): Promise<void> {
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
