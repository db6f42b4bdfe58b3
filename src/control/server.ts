/** The daemon's end of the control socket: a unix socket that many clients, good and bad, share. */
import { dirname } from 'node:path';
import { checkSocketPath } from '../common/places.js';
import { Connection, type ControlLimits, type ControlLog } from './connection.js';
import { Listener, prepareFolder, removeStaleSocket } from './listener.js';
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
  eventBytes: 256 * 1024,
};

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
  const listener = new Listener(options, (socket) => {
    if (!makeRoom(connections, limits.connections)) {
      options.log.warn(`control client refused: ${connections.size} clients are at work`);
      socket.destroy();
      return;
    }
    const connection = new Connection(socket, { ...options, limits });
    connections.add(connection);
    socket.on('close', () => connections.delete(connection));
  });
  await listener.start();
  const clock = setInterval(() => {
    const now = performance.now();
    for (const connection of connections) connection.check(now);
    listener.check();
  }, CHECK_MS);
  clock.unref();
  return {
    path: options.path,
    close: async () => {
      const closed = listener.close();
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
