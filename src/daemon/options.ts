/** The daemon's command line: everything said outright, as `layerdisk daemon start` says it. */
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { DiskError } from '../common/errors.js';
import { parseSize } from '../common/units.js';

const LOG_LEVELS = ['error', 'warn', 'info', 'debug'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export type TransportChoice = 'auto' | 'kernel' | 'fuse-native';

export const ON_FULL = ['report', 'pause'] as const;
export type OnFull = (typeof ON_FULL)[number];

export interface DaemonOptions {
  /** Absolute paths. */
  readonly store: string;
  readonly socket: string;
  readonly mountpoint: string;
  readonly transport: TransportChoice;
  /** I/O threads of the kernel channel. */
  readonly threads: number;
  readonly allowOther: boolean;
  /** Whether reads are checked against checksums. */
  readonly verifyReads: boolean;
  /** Whether a store is taken that was copied while it was in use. */
  readonly acceptCopy: boolean;
  /** Bytes of the store's file system that guests never take; undefined: as usual. */
  readonly reserve: number | undefined;
  /** What becomes of a write that there is no room for: refused, or held until there is. */
  readonly onFull: OnFull;
  readonly logLevel: LogLevel;
  /** Where to say that the daemon is ready: a descriptor. */
  readonly readyFd: number | undefined;
  /** Whether this process starts daemons, is one that a supervisor started, or stands alone. */
  readonly part: 'supervisor' | 'supervised' | 'alone';
}

const TRANSPORTS: readonly TransportChoice[] = ['auto', 'kernel', 'fuse-native'];
const MOST_THREADS = 32;

/** @throws DiskError `usage` naming the option. */
export function readDaemonOptions(args: readonly string[]): DaemonOptions {
  const { values } = parse(args);
  const required = (name: 'store' | 'socket' | 'mountpoint'): string => {
    const value = values[name];
    if (value === undefined) throw usage(`--${name} is missing`);
    return value;
  };
  const transport = values.transport ?? 'auto';
  if (!isOneOf(TRANSPORTS, transport)) {
    throw usage(`--transport ${transport}: one of ${TRANSPORTS.join(', ')}`);
  }
  const logLevel = values['log-level'] ?? 'info';
  if (!isOneOf(LOG_LEVELS, logLevel)) {
    throw usage(`--log-level ${logLevel}: one of ${LOG_LEVELS.join(', ')}`);
  }
  const onFull = values['on-full'] ?? 'report';
  if (!isOneOf(ON_FULL, onFull)) throw usage(`--on-full ${onFull}: one of ${ON_FULL.join(', ')}`);
  return {
    store: required('store'),
    socket: required('socket'),
    mountpoint: required('mountpoint'),
    transport,
    threads: readThreads(values.threads),
    verifyReads: values['verify-reads'] ?? false,
    acceptCopy: values['accept-copy'] ?? false,
    reserve: readReserve(values.reserve),
    onFull,
    allowOther: values['allow-other'] ?? process.geteuid?.() === 0,
    logLevel,
    readyFd: values['ready-fd'] === undefined ? undefined : Number(values['ready-fd']),
    part: readPart(values, transport),
  };
}

/** Where to say what is wrong with arguments that cannot be read. */
export function readyFdIn(args: readonly string[]): number | undefined {
  const at = args.indexOf('--ready-fd');
  const fd = at === -1 ? Number.NaN : Number(args[at + 1]);
  return Number.isInteger(fd) ? fd : undefined;
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      options: {
        store: { type: 'string' },
        socket: { type: 'string' },
        mountpoint: { type: 'string' },
        transport: { type: 'string' },
        threads: { type: 'string' },
        'allow-other': { type: 'boolean' },
        'verify-reads': { type: 'boolean' },
        'accept-copy': { type: 'boolean' },
        reserve: { type: 'string' },
        'on-full': { type: 'string' },
        'no-supervise': { type: 'boolean' },
        supervised: { type: 'boolean' },
        'log-level': { type: 'string' },
        'ready-fd': { type: 'string' },
      },
    });
  } catch (error) {
    throw usage(error instanceof Error ? error.message : String(error));
  }
}

/** Only the kernel channel can be taken over, and so only on Linux. */
function readPart(
  values: { readonly supervised?: boolean; readonly 'no-supervise'?: boolean },
  transport: TransportChoice,
): DaemonOptions['part'] {
  if (values.supervised === true) return 'supervised';
  const cannot = transport === 'fuse-native' || process.platform !== 'linux';
  return cannot || values['no-supervise'] === true ? 'alone' : 'supervisor';
}

/** As many as there are CPUs, at least two: measured in native-notes/kernel-channel.md. */
function readThreads(text: string | undefined): number {
  if (text === undefined) return Math.min(MOST_THREADS, Math.max(2, availableParallelism()));
  const count = Number(text);
  if (Number.isInteger(count) && count >= 1 && count <= MOST_THREADS) return count;
  throw usage(`--threads ${text}: a number from 1 to ${MOST_THREADS}`);
}

function readReserve(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const bytes = parseSize(text);
  if (bytes !== undefined && bytes >= 0 && Number.isSafeInteger(bytes)) return bytes;
  throw usage(`--reserve ${text}: a size, for example 1G, or 0 for none`);
}

function isOneOf<T extends string>(all: readonly T[], text: string): text is T {
  return (all as readonly string[]).includes(text);
}

function usage(message: string): DiskError {
  return new DiskError('usage', message, { hint: 'layerdisk daemon start --help' });
}
