/**
 * Where the store, the control socket and the mount are, when nobody or somebody says otherwise.
 */
import { userInfo } from 'node:os';
import { isAbsolute, join, resolve } from 'node:path';
import { DiskError } from './errors.js';

/** Longest path a unix socket can have: `sun_path` is 108 bytes with its NUL (unix(7)). */
export const MAX_SOCKET_PATH_BYTES = 107;

const SYSTEM_CONFIG = '/etc/layerdisk/config.json';

export interface Places {
  /** Folder of the store. */
  readonly store: string;
  /** Control socket. */
  readonly socket: string;
  /** Folder the disks are shown in. */
  readonly mountpoint: string;
}

/**
 * The same, as far as one source (the command line, the environment, the configuration file) says.
 */
export interface ChosenPlaces {
  readonly store?: string;
  readonly socket?: string;
  readonly mountpoint?: string;
}

/** Who asks and from where. */
export interface Caller {
  readonly uid: number;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Relative paths start here. */
  readonly cwd: string;
}

export function currentCaller(): Caller {
  return { uid: process.getuid?.() ?? -1, env: process.env, cwd: process.cwd() };
}

/** The places when nobody says otherwise: the system's for root, the XDG ones for a user. */
export function defaultPlaces(caller: Caller): Places {
  if (caller.uid === 0) {
    return {
      store: '/var/lib/layerdisk',
      socket: '/run/layerdisk/control.sock',
      mountpoint: '/run/layerdisk/mnt',
    };
  }
  const store = join(xdgFolder(caller, 'XDG_DATA_HOME', '.local/share'), 'layerdisk');
  const runtime = absolute(caller.env.XDG_RUNTIME_DIR);
  const volatile = runtime === undefined ? store : join(runtime, 'layerdisk');
  return { store, socket: join(volatile, 'control.sock'), mountpoint: join(volatile, 'mnt') };
}

/**
 * The configuration file: the system's for root, `$XDG_CONFIG_HOME/layerdisk/config.json` for a
 * user.
 */
export function configFile(caller: Caller): string {
  if (caller.uid === 0) return SYSTEM_CONFIG;
  return join(xdgFolder(caller, 'XDG_CONFIG_HOME', '.config'), 'layerdisk', 'config.json');
}

/**
 * What the environment says: `LAYERDISK_STORE` and `LAYERDISK_SOCKET`. An empty value says nothing.
 */
export function placesFromEnvironment(caller: Caller): ChosenPlaces {
  const { LAYERDISK_STORE: store, LAYERDISK_SOCKET: socket } = caller.env;
  return {
    ...(store === undefined || store === '' ? {} : { store }),
    ...(socket === undefined || socket === '' ? {} : { socket }),
  };
}

/**
 * Settles the places from several sources, strongest first. A socket or mountpoint from a weaker
 * source than the store's was meant for another store and does not count: without one of its own, a
 * store that is not the default one has its socket and mountpoint inside itself, so that two
 * scratch stores never collide.
 * @throws DiskError `usage` when the socket's path is too long, or a place is none for files.
 */
export function settlePlaces(sources: readonly ChosenPlaces[], caller: Caller): Places {
  const fallback = defaultPlaces(caller);
  const storeRank = sources.findIndex((source) => source.store !== undefined);
  const named = sources[storeRank]?.store;
  const store = named === undefined ? fallback.store : resolve(caller.cwd, named);
  const own = store !== fallback.store;
  const counted = storeRank === -1 ? sources : sources.slice(0, storeRank + 1);
  const pick = (key: 'socket' | 'mountpoint', inStore: string): string => {
    const chosen = counted.find((source) => source[key] !== undefined)?.[key];
    if (chosen !== undefined) return resolve(caller.cwd, chosen);
    return own ? join(store, inStore) : fallback[key];
  };
  const places = {
    store,
    socket: pick('socket', 'control.sock'),
    mountpoint: pick('mountpoint', 'mnt'),
  };
  for (const path of Object.values(places)) refuseKernelFolder(path);
  checkSocketPath(places.socket);
  return places;
}

/** Nobody can make a folder there, and Node's `mkdir` with `recursive` never ends trying. */
function refuseKernelFolder(path: string): void {
  if (!/^\/(proc|sys)(\/|$)/.test(path)) return;
  throw new DiskError('usage', `${path} lies in a file system that only shows what the kernel is`, {
    hint: 'name another place: --store DIR, --socket PATH, daemon start --mountpoint DIR',
  });
}

/** @throws DiskError `usage` when the kernel could not bind or connect to a socket of this path. */
export function checkSocketPath(path: string): void {
  const length = Buffer.byteLength(path);
  if (length <= MAX_SOCKET_PATH_BYTES) return;
  throw new DiskError(
    'usage',
    `socket path ${path} is ${length} bytes long; the most that works is ${MAX_SOCKET_PATH_BYTES}`,
    { hint: 'name a shorter one: --socket PATH or LAYERDISK_SOCKET' },
  );
}

function xdgFolder(caller: Caller, variable: string, underHome: string): string {
  return absolute(caller.env[variable]) ?? join(homeFolder(caller), underHome);
}

/** Always absolute: the daemon and its commands run in different folders. */
function homeFolder(caller: Caller): string {
  const named = absolute(caller.env.HOME);
  if (named !== undefined) return named;
  try {
    return userInfo().homedir;
  } catch {
    // A user whom no table knows has no home; whoever names a store does not need one.
    return '/';
  }
}

/** The XDG specification: a relative path in one of its variables is to be ignored. */
function absolute(path: string | undefined): string | undefined {
  return path !== undefined && isAbsolute(path) ? path : undefined;
}
