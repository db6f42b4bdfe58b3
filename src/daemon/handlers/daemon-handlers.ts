/** The methods of the control protocol that are about the daemon itself. */
import { DiskError } from '../../common/errors.js';
import { VERSION } from '../../common/version.js';
import type {
  DaemonStatus,
  Handlers,
  IoStats,
  SpaceView,
  StatsView,
} from '../../control/protocol.js';
import type { LocalEngine } from '../../engine/local-engine.js';
import { STAT } from '../../engine/shared/shared-memory.js';
import { freeSpace } from '../../storage/free-space.js';
import type { Transport } from '../../transport/transport.js';
import type { VmService } from '../../vm/vm-service.js';
import type { Guests } from '../guests.js';
import { requireWritable } from '../restart.js';
import type { SpaceWatch } from '../space-watch.js';

export type DaemonMethod = 'daemon.status' | 'daemon.stop' | 'daemon.restart' | 'stats';

/** So many guests are named in an error. */
const MAX_GUESTS = 3;

export interface DaemonParts {
  readonly service: VmService;
  readonly engine: LocalEngine;
  readonly guests: Pick<Guests, 'view'>;
  readonly transport: Transport;
  readonly store: string;
  readonly threads: number;
  readonly allowOther: boolean;
  readonly space: SpaceWatch;
  readonly startedAt: Date;
  /**
   * Begins the end; resolves when nothing is mounted any more. @throws DiskError `busy` naming the
   * holders.
   */
  readonly stop: () => Promise<void>;
  /** Undefined when there is none (any more). */
  readonly supervisorPid: () => number | undefined;
  /**
   * Begins to hand over to a new process. @throws DiskError `not-supported` without a supervisor,
   * `failed` when the new one does not start; this one goes on then.
   */
  readonly restart: () => Promise<void>;
}

export function daemonHandlers(parts: DaemonParts): Pick<Handlers, DaemonMethod> {
  return {
    async 'daemon.status'() {
      return statusOf(parts);
    },
    async 'daemon.stop'() {
      await parts.stop().catch((error: unknown) => {
        throw namingGuests(parts, error);
      });
      return {};
    },
    async 'daemon.restart'() {
      requireWritable(parts.store);
      await parts.restart();
      return {};
    },
    async stats({ vm }) {
      return statsOf(parts, vm);
    },
  };
}

/** Of a guest people know its VM, not its process; and to end it there is a better way. */
function namingGuests({ service, guests }: DaemonParts, error: unknown): unknown {
  if (!(error instanceof DiskError) || error.code !== 'busy') return error;
  const running = service.list().filter(({ number }) => guests.view(number) !== undefined);
  if (running.length === 0) return error;
  const named = running.slice(0, MAX_GUESTS).map(({ name }) => name);
  const more = running.length > MAX_GUESTS ? [`${running.length - MAX_GUESTS} more`] : [];
  const stops = named.map((vm) => `layerdisk stop ${vm}`).join('; ');
  return new DiskError('busy', `${error.message}; guests run: ${[...named, ...more].join(', ')}`, {
    hint: `end the guests first: ${stops}`,
    cause: error,
  });
}

function statusOf(parts: DaemonParts): DaemonStatus {
  const { service, engine, transport } = parts;
  const supervisorPid = transport.kind === 'kernel' ? parts.supervisorPid() : undefined;
  return {
    version: VERSION,
    pid: process.pid,
    ...(supervisorPid === undefined ? {} : { supervisorPid }),
    store: parts.store,
    mountpoint: transport.mountpoint,
    transport: transport.kind,
    threads: parts.threads,
    startedAt: parts.startedAt.toISOString(),
    vms: service.list().length,
    openDisks: engine.volumes.openCount,
    allowOther: parts.allowOther,
    space: viewSpace(parts),
  };
}

function viewSpace({ space, engine }: DaemonParts): SpaceView {
  try {
    space.look();
  } catch (error) {
    // Without its store, too, a daemon says who it is and can be stopped. This is the last look's.
    if (!(error instanceof DiskError)) throw error;
  }
  const { total, free, reserve, warnBelow } = space.facts;
  return {
    state: space.state,
    totalBytes: total,
    freeBytes: free,
    reserveBytes: reserve,
    warnBelowBytes: warnBelow,
    refusedWrites: engine.context.allowance.refused,
    onFull: space.isHolding ? 'pause' : 'report',
    waitingWrites: space.waitingWrites,
    waitingBytes: space.waitingBytes,
  };
}

function statsOf(parts: DaemonParts, vm?: string): StatsView {
  const { service, engine, store, startedAt } = parts;
  const { used, free } = freeSpace(store);
  return {
    uptimeSeconds: (Date.now() - startedAt.getTime()) / 1000,
    rssBytes: process.memoryUsage.rss(),
    indexBytes: engine.indexBytes,
    openDisks: engine.volumes.openCount,
    storeBytes: used,
    storeFreeBytes: free,
    space: viewSpace(parts),
    io: ioStats(engine.totalStats()),
    ...(vm === undefined ? {} : { vms: vmStats(service, engine, vm) }),
  };
}

/** A disk that nobody has open shows zeroes: its counters are those of its open volume. */
function vmStats(
  service: VmService,
  engine: LocalEngine,
  vm: string,
): NonNullable<StatsView['vms']> {
  return service.read(vm).disks.map(({ name, head }) => {
    const open = engine.volumes.describe(head);
    const counted = open === undefined ? [] : engine.statsOf(open.handle);
    return { name: vm, disk: name, io: ioStats(counted) };
  });
}

function ioStats(counted: readonly number[]): IoStats {
  const at = (field: number): number => counted[field] ?? 0;
  return {
    reads: at(STAT.reads),
    readBytes: at(STAT.readBytes),
    writes: at(STAT.writes),
    writtenBytes: at(STAT.writtenBytes),
    flushes: at(STAT.flushes),
    discards: at(STAT.discards),
  };
}
